import re
from pathlib import Path

from ralis_backend.cli.upload_names import MAX_CHARACTERS, file_names
from ralis_backend.offline.datasets import Sample


class Stored(Sample):
    """A sample whose file holds its path."""

    def content(self):
        return str(self.image_path).encode()


def sample(key, suffix=".jpg"):
    return Stored(key, Path("images") / f"{key}{suffix}", None)


def test_images_keep_their_names_where_they_can():
    samples = [sample("train/a"), sample("train/b c!"), sample("val/d"), sample("test/d", ".PNG")]
    assert list(file_names(samples)) == ["a.jpg", "b_c.jpg", "val_d.jpg", "test_d.png"]


def test_names_that_become_equal_stay_apart():
    names = file_names([sample("a b"), sample("a_b"), sample("a!b"), sample("___")])
    assert len(names) == 4
    assert all(re.fullmatch("a_b-[0-9a-f]{12}.jpg", name) for name in list(names)[:3])
    assert list(names)[-1] == "image.jpg"


def test_names_in_other_scripts_are_those_that_label_studio_keeps():
    samples = [
        sample("写真12"), sample("e\u0301te\u0301"), sample("हिन्दी"), sample("зображення 3"),
        sample("\U0001f33e"),
    ]  # fmt: skip
    assert list(file_names(samples)) == [
        "写真12.jpg", "\xe9t\xe9.jpg", "हनद.jpg", "зображення_3.jpg", "image.jpg",
    ]  # fmt: skip


def test_long_names_stay_apart_and_are_not_cut_by_label_studio():
    samples = [sample("写" * 300 + end) for end in ("1", "2", "")]
    names = file_names(samples)
    assert len(names) == 3
    assert all(len(name) == MAX_CHARACTERS + len(".jpg") for name in names)
    assert list(file_names(samples[:0:-1])) == list(names)[:0:-1]  # whatever else is there
