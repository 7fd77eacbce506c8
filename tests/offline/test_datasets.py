import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ralis_backend.core.regions import VOID
from ralis_backend.offline.datasets import (
    Dataset,
    DatasetClass,
    DatasetError,
    plain_folder,
    write_dataset,
)
from tests.core.tiff_files import write_tiff

CLASSES = (DatasetClass("road", (128, 64, 128)), DatasetClass("sky", (70, 130, 180)))


def random_image(rng, size=(24, 31)):
    return rng.integers(0, 256, (*size, 3)).astype(np.uint8)


def random_mask(rng, size=(24, 31)):
    return rng.choice(np.array([0, 1, VOID], np.uint8), size)


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    samples = [
        (split, f"{folder}/{name}", random_image(rng), random_mask(rng))
        for split, folder, name in [
            ("d_v", "train", "a"),
            ("d_v", "train", "b"),
            ("d_r", "val", "a"),
            ("test", "test", "c"),
        ]
    ]
    write_dataset(tmp_path / "toy", CLASSES, samples)
    return tmp_path / "toy"


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_what_is_written_is_read_back(tmp_path):
    rng = np.random.default_rng(1)
    image, mask = random_image(rng), random_mask(rng)
    write_dataset(tmp_path / "one", CLASSES, [("d_v", "train/x", image, mask)])
    dataset = Dataset.open(tmp_path / "one")
    assert dataset.classes == CLASSES
    (sample,) = dataset.split("d_v")
    np.testing.assert_array_equal(sample.image(), image)
    np.testing.assert_array_equal(sample.mask(), mask)


def test_files_are_known_by_their_content_in_the_splits_that_are_looked_at(root):
    dataset = Dataset.open(root)
    (looked_at, *_), (other, *_) = dataset.split("d_v"), dataset.split("d_r")
    before = dataset.files_digest(("d_v", "d_s"))
    other.mask_path.write_bytes(b"corrected")
    assert dataset.files_digest(("d_v", "d_s")) == before
    contents = {path: path.read_bytes() for path in (looked_at.mask_path, looked_at.image_path)}
    for path, content in contents.items():
        path.write_bytes(content + b"corrected")
        assert dataset.files_digest(("d_v", "d_s")) != before
        path.write_bytes(content)
    assert dataset.files_digest(("d_v", "d_s")) == before


def test_pictures_are_another_where_a_deeper_one_elsewhere_changes_how_they_are_shown(tmp_path):
    def opened(brightest: int) -> Dataset:
        for name, highest in (("a", 4000), ("b", brightest)):
            values = np.linspace(0, highest, 24 * 31).reshape(24, 31).astype(np.uint16)
            Image.fromarray(values).save(tmp_path / f"{name}.png")
        dataset = plain_folder(tmp_path)
        return replace(dataset, splits={"d_v": ("a",), "test": ("b",)})

    before, same, after = opened(4000), opened(4095), opened(60000)
    assert before.split("d_v")[0].image().max() > 2 * after.split("d_v")[0].image().max()
    assert before.files_digest(["d_v"]) == same.files_digest(["d_v"])
    assert before.files_digest(["d_v"]) != after.files_digest(["d_v"])


def test_splits_keep_their_order_and_empty_ones_exist(root):
    dataset = Dataset.open(root)
    assert [sample.key for sample in dataset.split("d_v")] == ["train/a", "train/b"]
    assert [sample.key for sample in dataset.split("d_r")] == ["val/a"]
    assert dataset.split("d_s") == ()


def test_an_unknown_split_names_those_there_are(root):
    with pytest.raises(DatasetError, match="no split 'validation'; it has d_s"):
        Dataset.open(root).split("validation")


def test_an_unknown_split_in_the_file_is_refused(root):
    change_json(root / "splits.json", lambda splits: splits.update(validation=[]))
    with pytest.raises(DatasetError, match="unknown splits"):
        Dataset.open(root)


def test_a_missing_mask_is_named(root):
    (root / "masks/val/a.png").unlink()
    with pytest.raises(DatasetError, match=r"'val/a' .* has no mask"):
        Dataset.open(root)


def test_a_missing_image_is_named(root):
    (root / "images/val/a.png").unlink()
    with pytest.raises(DatasetError, match=r"names 'val/a', but there is no images/val/a"):
        Dataset.open(root)


def test_a_mask_of_another_size_is_refused_with_both_sizes(root):
    Image.fromarray(np.zeros((24, 30), np.uint8)).save(root / "masks/train/b.png")
    with pytest.raises(DatasetError, match=r"24 x 30 pixels .* image 24 x 31"):
        Dataset.open(root)


def test_a_class_index_without_a_class_is_refused(root):
    Image.fromarray(np.full((24, 31), 2, np.uint8)).save(root / "masks/train/b.png")
    with pytest.raises(DatasetError, match=r"class index 2, but there are only 2 classes"):
        Dataset.open(root)


def test_a_mask_saved_as_colours_is_refused(root):
    Image.fromarray(np.zeros((24, 31, 3), np.uint8)).save(root / "masks/train/b.png")
    with pytest.raises(DatasetError, match="do not save masks as colours"):
        Dataset.open(root)


def test_an_image_in_two_splits_is_refused(root):
    change_json(root / "splits.json", lambda splits: splits["test"].append("train/a"))
    with pytest.raises(DatasetError, match="'train/a' stands in d_v and in test"):
        Dataset.open(root)


def test_a_key_cannot_leave_the_folder(root):
    change_json(root / "splits.json", lambda splits: splits["test"].append("../secret"))
    with pytest.raises(DatasetError, match="leaves the dataset's folder"):
        Dataset.open(root)


def test_two_files_of_one_name_are_refused(root):
    Image.fromarray(np.zeros((24, 31, 3), np.uint8)).save(root / "images/train/a.jpg")
    with pytest.raises(DatasetError, match="have the same name"):
        Dataset.open(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(void=0), "void is 0, expected 255"),
        (lambda c: c["classes"][1].update(id=7), r"class ids \[0, 7\]"),
        (lambda c: c["classes"][1].update(name="road"), "same class name twice"),
        (lambda c: c["classes"][1].update(color=[1, 2]), "malformed"),
        (lambda c: c.update(classes=[]), "0 classes"),
        (lambda c: c.update(background="road"), "background is 'road', expected the id of a class"),
        (lambda c: c.update(background=len(c["classes"])), "expected the id of a class, 0 to"),
        (lambda c: c.update(background=True), "background is True"),
    ],
)
def test_wrong_classes_are_refused(root, change, message):
    change_json(root / "classes.json", change)
    with pytest.raises(DatasetError, match=message):
        Dataset.open(root)


def test_a_turned_photo_is_measured_as_it_is_shown(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((31, 24, 3), np.uint8)).save(root / "images/train/t.jpg", exif=exif)
    Image.fromarray(np.zeros((24, 31), np.uint8)).save(root / "masks/train/t.png")
    change_json(root / "splits.json", lambda splits: splits["d_v"].append("train/t"))
    assert Dataset.open(root).samples["train/t"].image().shape == (24, 31, 3)


def test_nothing_is_overwritten(root):
    with pytest.raises(FileExistsError, match="exists already"):
        write_dataset(root, CLASSES, [])


class TestPlainFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        rng = np.random.default_rng(2)
        for index in range(7):
            Image.fromarray(random_image(rng)).save(tmp_path / f"p{index}.jpg")
        return tmp_path

    def test_pictures_without_masks_are_all_to_be_labelled(self, folder):
        dataset = plain_folder(folder)
        assert len(dataset.split("d_v")) == 7
        assert dataset.class_names == ("class-0", "class-1")
        with pytest.raises(DatasetError, match="has no mask"):
            dataset.split("d_v")[0].mask()

    def test_one_picture_is_enough(self, tmp_path):
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "only.png")
        assert [s.key for s in plain_folder(tmp_path).split("d_v")] == ["only"]

    def test_masks_are_found_in_both_places_and_split(self, folder):
        (folder / "masks").mkdir()
        for index in range(7):
            target = (
                folder / "masks" / f"p{index}.png" if index % 2 else folder / f"p{index}_mask.png"
            )
            Image.fromarray(np.full((24, 31), index, np.uint8)).save(target)
        dataset = plain_folder(folder)
        keys = {name: [s.key for s in dataset.split(name)] for name in ("d_v", "d_r", "test")}
        assert keys == {"d_v": ["p0", "p1", "p2", "p5", "p6"], "d_r": ["p3"], "test": ["p4"]}
        assert len(dataset.classes) == 7
        assert dataset.samples["p5"].mask().max() == 5

    def test_class_names_can_be_given(self, folder):
        dataset = plain_folder(folder, ["sky", "road", "car"])
        assert dataset.class_names == ("sky", "road", "car")
        assert len({label.color for label in dataset.classes}) == 3

    def test_an_empty_folder_says_what_was_expected(self, tmp_path):
        with pytest.raises(DatasetError, match="holds no picture"):
            plain_folder(tmp_path)

    def test_a_broken_picture_is_named(self, folder):
        (folder / "p3.jpg").write_bytes(b"nothing")
        with pytest.raises(DatasetError, match=r"p3\.jpg is no readable image"):
            plain_folder(folder)

    def test_a_missing_folder_is_named(self, tmp_path):
        with pytest.raises(DatasetError, match="is no folder"):
            plain_folder(tmp_path / "nowhere")


@pytest.mark.parametrize(("name", "num_classes"), [("camvid", 11), ("dubai_aerial", 5)])
def test_real_datasets_open(shared, name, num_classes):
    dataset = Dataset.open(shared / "data" / name)
    assert len(dataset.classes) == num_classes
    assert all(dataset.split(split) for split in ("d_s", "d_t", "d_v", "d_r", "test"))


def test_an_export_s_names_of_splits_are_those_of_ours(root):
    content = {"train": ["train/a", "train/b"], "val": ["val/a"], "test": []}
    (root / "splits.json").write_text(json.dumps(content))
    dataset = Dataset.open(root)
    assert [sample.key for sample in dataset.split("d_v")] == ["train/a", "train/b"]
    assert [sample.key for sample in dataset.split("d_r")] == ["val/a"]


def test_an_image_in_two_names_of_one_split_is_named(root):
    change_json(root / "splits.json", lambda splits: splits.update(train=["train/a"]))
    with pytest.raises(DatasetError, match="'train/a' stands in d_v and in train"):
        Dataset.open(root)


def test_pictures_of_more_than_8_bits_are_shown_by_one_range(tmp_path):
    for name, most in (("a", 900), ("b", 4000), ("c", 200)):
        values = np.linspace(0, most, 48 * 64).astype(np.uint16).reshape(48, 64)
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    Image.new("L", (8, 6), 77).save(tmp_path / "d.png")
    samples = plain_folder(tmp_path).samples
    assert [int(samples[name].image().max()) for name in "abcd"] == [900 >> 4, 250, 200 >> 4, 77]


def test_a_picture_of_many_bands_has_a_size(tmp_path):
    (tmp_path / "a.tif").write_bytes(write_tiff(np.full((6, 8, 13), 3000, np.uint16)))
    (sample,) = plain_folder(tmp_path).samples.values()
    assert sample.image().shape == (6, 8, 3)
