import numpy as np
import pytest

from ralis_backend.cli.demo.scenes import CLASSES, generate

NAMES = [name for name, _ in CLASSES]


def test_a_scene_depends_on_seed_and_index_alone():
    first = list(generate(3, seed=4))
    again = list(generate(2, seed=4))
    for one, other in zip(first, again, strict=False):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.mask, other.mask)
    assert not np.array_equal(first[0].mask, first[1].mask)
    assert not np.array_equal(first[0].image, next(generate(1, seed=5)).image)


@pytest.mark.parametrize("size", [(360, 480), (101, 77), (200, 640), (32, 32)])
def test_scenes_have_the_size_asked_for(size):
    scene = next(generate(1, size=size))
    assert scene.image.shape == (*size, 3)
    assert scene.image.dtype == scene.mask.dtype == np.uint8
    assert scene.mask.shape == size


@pytest.mark.e2e
def test_streets_are_strongly_imbalanced_and_every_class_occurs():
    counts = np.zeros(len(CLASSES))
    for scene in generate(16, seed=0):
        counts += np.bincount(scene.mask.ravel(), minlength=len(CLASSES))
    share = dict(zip(NAMES, counts / counts.sum(), strict=True))
    assert min(share.values()) > 0
    assert share["road"] > 0.2
    for rare in ("pedestrian", "bicycle", "sign", "fence"):
        assert share[rare] < 0.03


def test_surfaces_are_textured():
    scene = next(generate(1, seed=1))
    for name in ("road", "building", "tree"):
        pixels = scene.image[scene.mask == NAMES.index(name)].astype(float)
        assert pixels.std(axis=0).min() > 6


def test_a_size_too_small_is_refused():
    with pytest.raises(ValueError, match="too small"):
        next(generate(1, size=(8, 8)))
