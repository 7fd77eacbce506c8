from pathlib import Path

import numpy as np

from ralis_backend.cli.uploads import file_names, upload
from ralis_backend.core.images import decode_image
from ralis_backend.offline.datasets import Sample, plain_folder
from tests.core.tiff_files import write_tiff


def sample(key, suffix=".jpg"):
    return Sample(key, Path("images") / f"{key}{suffix}", None)


def test_images_keep_their_names_where_they_can():
    samples = [sample("train/a"), sample("train/b c!"), sample("val/d"), sample("test/d", ".PNG")]
    assert list(file_names(samples)) == ["a.jpg", "b_c.jpg", "val_d.jpg", "test_d.png"]


def test_names_that_become_equal_stay_apart():
    names = file_names([sample("a b"), sample("a_b"), sample("a!b"), sample("___")])
    assert len(names) == 4
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
    names = file_names([sample("写" * 300 + "1"), sample("写" * 300 + "2"), sample("写" * 300)])
    assert len(names) == 3
    assert all(len(name) <= 67 for name in names)


def test_pictures_that_label_studio_does_not_take_are_sent_as_what_they_show(tmp_path):
    content = write_tiff(np.full((6, 8, 13), 4000, np.uint16))
    (tmp_path / "field.tif").write_bytes(content)
    samples = plain_folder(tmp_path).samples.values()
    sent = []

    class Client:
        def upload_files(self, project_id, files):
            sent.extend(files)

    upload(Client(), 1, file_names(list(samples)), lambda message: None)
    ((name, file),) = sent
    assert name == "field.png"
    np.testing.assert_array_equal(decode_image(file), next(iter(samples)).image())
