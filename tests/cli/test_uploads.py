import re
from types import SimpleNamespace
from urllib.parse import quote

import cv2
import numpy as np
import pytest

from ralis_backend.cli.upload_names import file_names
from ralis_backend.cli.uploads import import_into, upload
from ralis_backend.core.images import decode_image, encode_png, mask_to_png
from ralis_backend.core.regions import VOID
from ralis_backend.labelstudio.payloads.paint import read_paint
from ralis_backend.offline.datasets import Dataset, DatasetClass, Sample, plain_folder
from ralis_backend.online.tool import ToolProject, ToolTask
from tests.core.tiff_files import write_tiff

CLASSES = ("road", "sky")
LABELS = "".join(f'<Label value="{name}"/>' for name in CLASSES)
CONFIG = (
    '<View><Image name="image" value="$image"/>'
    f'<BrushLabels name="brush" toName="image">{LABELS}</BrushLabels></View>'
)


class LabelStudio:
    """Files and annotations of a project; task n shows file n."""

    def __init__(self):
        self.files, self.annotations = {}, {}
        self.num_read, self.lost = 0, set()

    def upload_files(self, project_id, files):
        first = len(self.files) + 1
        for number, (name, content) in enumerate(files, start=first):
            self.files[number] = (f"/data/upload/{project_id}/{number:08x}-{name}", content)
        return list(range(first, first + len(files)))

    def file_paths(self, project_id, ids):
        return [self.files[number][0] for number in ids]

    def tasks(self, project_id):
        return [
            {"id": number, "total_annotations": number in self.annotations} for number in self.files
        ]

    def annotate(self, task_id, result):
        assert task_id not in self.annotations
        self.annotations[task_id] = result

    def image(self, task):
        if task.id in self.lost:
            raise ValueError("it is gone")
        self.num_read += 1
        return self.files[task.id][1]

    def import_folder(self, dataset):
        tool = SimpleNamespace(tasks=self._tool_tasks, image=self.image)
        return import_into(self, tool, ToolProject("1.1", 1, "pool", CONFIG, ()), dataset, str)

    def _tool_tasks(self, project_id):
        return [ToolTask(number, None, quote(path)) for number, (path, _) in self.files.items()]

    def masks_by_shade(self):
        """The class of each task's annotation, by what its picture shows."""
        found = {}
        for number, (_, content) in self.files.items():
            image = decode_image(content)
            painted = read_paint(self.annotations.get(number, []), CLASSES, image.shape[:2])
            found[int(image[0, 0, 0])] = int(painted.mask[0, 0])
        return found


@pytest.fixture
def label_studio():
    return LabelStudio()


@pytest.fixture
def folder(tmp_path):
    """Makes a dataset in a folder of this name: a shade and a class by picture."""

    def make(name, pictures):
        (tmp_path / name).mkdir()
        samples = {}
        for key, (shade, value) in pictures.items():
            path, mask = tmp_path / name / f"{key}.png", tmp_path / name / f"{key}_mask.png"
            path.write_bytes(encode_png(np.full((4, 5, 3), shade, np.uint8)))
            if value is not None:
                mask.write_bytes(mask_to_png(np.full((4, 5), value, np.uint8)))
            samples[key] = Sample(key, path, None if value is None else mask)
        classes = tuple(DatasetClass(each, (0, 0, 0)) for each in CLASSES)
        return Dataset(name, tmp_path / name, classes, samples, {})

    return make


def test_pictures_that_label_studio_does_not_take_are_sent_as_what_they_show(tmp_path):
    content = write_tiff(np.full((6, 8, 13), 4000, np.uint16))
    (tmp_path / "field.tif").write_bytes(content)
    samples = plain_folder(tmp_path).samples.values()
    sent = []

    class Client:
        def upload_files(self, project_id, files):
            sent.extend(files)
            return [5]

        def file_paths(self, project_id, ids):
            return [f"/data/upload/1/0a1b2c3d-{number}.png" for number in ids]

    uploaded = upload(Client(), 1, file_names(list(samples)), lambda message: None)
    ((name, file),) = sent
    assert re.fullmatch("field-[0-9a-f]{12}.png", name)  # the range may change with the folder
    assert list(uploaded) == ["0a1b2c3d-5.png"]
    np.testing.assert_array_equal(decode_image(file), next(iter(samples)).image())


def test_a_mask_that_is_all_void_makes_no_annotation(label_studio, folder):
    dataset = folder("a", {"known": (10, 0), "unknown": (20, VOID)})
    assert label_studio.import_folder(dataset) == (2, 1)
    assert label_studio.masks_by_shade() == {10: 0, 20: VOID}
    assert list(label_studio.annotations) == [1]


def test_an_import_is_safe_to_repeat(label_studio, folder):
    pictures = {"a": (10, 0), "b": (20, 1), "c": (30, 0)}
    label_studio.import_folder(folder("first", {"b": (20, None)}))
    assert label_studio.import_folder(folder("a", pictures)) == (2, 3)
    assert label_studio.masks_by_shade() == {10: 0, 20: 1, 30: 0}
    label_studio.num_read = 0
    assert label_studio.import_folder(folder("again", pictures)) == (0, 0)
    assert label_studio.num_read == 3


def test_other_pictures_of_the_same_names_get_tasks_and_masks_of_their_own(label_studio, folder):
    label_studio.import_folder(folder("card1", {"DSC_1": (10, None), "DSC_2": (20, None)}))
    second = folder("card2", {"DSC_1": (30, 0), "DSC_2": (40, 1)})
    assert label_studio.import_folder(second) == (2, 2)
    assert label_studio.masks_by_shade() == {10: VOID, 20: VOID, 30: 0, 40: 1}
    assert label_studio.import_folder(second) == (0, 0)


def test_names_that_agree_in_their_beginning_are_imported_once(label_studio, folder):
    names = [f"{'flight' * 12}_{number:03}" for number in range(30)]
    pictures = {name: (number, number % 2) for number, name in enumerate(names)}
    assert label_studio.import_folder(folder("a", pictures)) == (30, 30)
    assert label_studio.import_folder(folder("again", pictures)) == (0, 0)
    assert label_studio.masks_by_shade() == {number: number % 2 for number in range(30)}
    assert label_studio.num_read == 0  # the names say it


def test_what_was_imported_under_cut_names_is_recognised(label_studio, folder):
    stem = f"{'flight' * 12}_"
    dataset = folder("a", {f"{stem}{number}": (number, number % 2) for number in range(4)})
    shown = {f"{stem[:60]}{'_' * number}.png": number + 1 for number in range(2)}
    shown[f"{stem[:60]}{'_' * 15}_a1B2c3D.png"] = 3  # cut by Label Studio
    images = {number: dataset.samples[f"{stem}{number}"].content() for number in range(4)}
    label_studio.upload_files(1, [(name, images[number]) for name, number in shown.items()])
    assert label_studio.import_folder(dataset) == (1, 4)
    assert label_studio.masks_by_shade() == {number: number % 2 for number in range(4)}


def test_a_picture_is_the_same_whatever_else_its_file_says(label_studio, folder):
    dataset = folder("a", {"a": (10, 0)})
    pixels = decode_image(dataset.samples["a"].content())
    label_studio.upload_files(1, [("a.bmp", cv2.imencode(".bmp", pixels)[1].tobytes())])
    assert label_studio.import_folder(dataset) == (0, 1)


def test_where_nobody_can_tell_nothing_is_uploaded(label_studio, folder):
    label_studio.import_folder(folder("card1", {"DSC_1": (10, None)}))
    label_studio.lost.add(1)
    with pytest.raises(ValueError, match=r"task 1 shows a file called like DSC_1.png.*delete"):
        label_studio.import_folder(folder("card2", {"DSC_0": (20, 1), "DSC_1": (30, 1)}))
    assert len(label_studio.files) == 1
