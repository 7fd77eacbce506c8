from pathlib import Path

from ralis_backend.cli.uploads import file_names
from ralis_backend.offline.datasets import Sample


def sample(key, suffix=".jpg"):
    return Sample(key, Path("images") / f"{key}{suffix}", None)


def test_images_keep_their_names_where_they_can():
    samples = [sample("train/a"), sample("train/b c!"), sample("val/d"), sample("test/d", ".PNG")]
    assert list(file_names(samples)) == ["a.jpg", "b_c.jpg", "val_d.jpg", "test_d.png"]


def test_names_that_become_equal_stay_apart():
    names = file_names([sample("a b"), sample("a_b"), sample("a!b"), sample("___")])
    assert len(names) == 4
    assert list(names)[-1] == "image.jpg"
