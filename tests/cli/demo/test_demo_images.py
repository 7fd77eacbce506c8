import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from ralis_backend.cli.demo import demo_images
from tests.cli.demo.classes import CLASSES


def test_a_dataset_is_labelled_on_d_v_and_judged_on_the_others(dataset):
    images = demo_images.from_dataset(dataset, max_images=3)
    assert [sample.key for sample in images.samples] == ["d_v/x0", "d_v/x2", "d_v/x4"]
    assert (len(images.validation), len(images.test)) == (2, 3)
    assert images.is_labelled


def test_a_folder_that_is_a_dataset_is_read_as_one(dataset):
    assert len(demo_images.from_folder(dataset, (), None).test) == 3


def test_pictures_without_masks_cannot_be_labelled_by_a_script(tmp_path):
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "a.png")
    assert not demo_images.from_folder(tmp_path, ("sky", "road"), None).is_labelled


def test_scenes_are_drawn_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_images, "NUM_SCENES", {"d_v": 2, "d_r": 1, "test": 1})
    drawn = []
    for _ in range(2):
        images = demo_images.from_scenes(tmp_path, 3, None, lambda done, total: drawn.append(done))
    assert drawn == [1, 2, 3, 4]
    assert (len(images.samples), len(images.validation), len(images.test)) == (2, 1, 1)
    assert len(images.dataset.classes) >= 8


def test_the_fingerprint_tells_other_images_and_modes_apart(dataset):
    images = demo_images.from_dataset(dataset, None)
    assert images.fingerprint("crops") == demo_images.from_dataset(dataset, None).fingerprint(
        "crops"
    )
    assert images.fingerprint("crops") != images.fingerprint("in-place")
    assert images.fingerprint("crops") != demo_images.from_dataset(dataset, 2).fingerprint("crops")


@pytest.mark.parametrize(("mode", "num_boxes"), [("crops", 0), ("in-place", 1)])
def test_the_label_config_has_a_brush_per_class(mode, num_boxes):
    root = ET.fromstring(demo_images.label_config(CLASSES, mode, "Suggested region"))
    labels = root.findall(".//BrushLabels/Label")
    assert [label.get("value") for label in labels] == ["road & <rail>", 'a "b"']
    assert labels[0].get("background") == "#804080"
    assert len(root.findall(".//RectangleLabels/Label")) == num_boxes


def test_tasks_find_their_sample_by_the_uploaded_name(dataset):
    images = demo_images.from_dataset(dataset, None)
    found = demo_images.samples_by_task({7: "/data/upload/1/0a1b2c3d-x3.png"}, images.names)
    assert found[7].key == "d_v/x3"
    with pytest.raises(ValueError, match=r"task 8 shows .*other\.png"):
        demo_images.samples_by_task({8: "/data/upload/1/0a1b2c3d-other.png"}, images.names)
