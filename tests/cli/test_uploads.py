from pathlib import Path

import numpy as np

from ralis_backend.cli.uploads import file_names, import_into, upload
from ralis_backend.core.images import decode_image, encode_png, mask_to_png
from ralis_backend.core.regions import VOID
from ralis_backend.offline.datasets import Dataset, DatasetClass, Sample, plain_folder
from ralis_backend.online.tool import ToolProject, ToolTask
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


def test_a_mask_that_is_all_void_makes_no_annotation(tmp_path):
    for name, value in (("known", 0), ("unknown", VOID)):
        (tmp_path / f"{name}.png").write_bytes(encode_png(np.zeros((4, 5, 3), np.uint8)))
        mask = np.full((4, 5), value, np.uint8)
        (tmp_path / f"{name}_mask.png").write_bytes(mask_to_png(mask))
    samples = {
        name: Sample(name, tmp_path / f"{name}.png", tmp_path / f"{name}_mask.png")
        for name in ("known", "unknown")
    }
    dataset = Dataset("set", tmp_path, (DatasetClass("road", (0, 0, 0)),), samples, {})
    label = '<BrushLabels name="brush" toName="image"><Label value="road"/></BrushLabels>'
    config = f'<View><Image name="image" value="$image"/>{label}</View>'
    pool = ToolProject("1.1", 1, "pool", config, ())
    annotated = []

    class Client:
        def tasks(self, project_id):
            return [{"id": number, "total_annotations": 0} for number in (1, 2)]

        def annotate(self, task_id, result):
            annotated.append(task_id)

    class Tool:
        def tasks(self, project_id):
            names = enumerate(("known", "unknown"), start=1)
            return [ToolTask(number, None, f"/data/{name}.png") for number, name in names]

    assert import_into(Client(), Tool(), pool, dataset, print) == (0, 1)
    assert annotated == [1]
