import csv
import io
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from ralis_backend.core.files import PARTIAL
from ralis_backend.core.images import decode_image, encode_png, mask_from_png
from ralis_backend.core.regions import VOID
from ralis_backend.core.segmenter import build, load
from ralis_backend.offline.datasets import Dataset
from ralis_backend.online.answers import ANSWER_KINDS, AnswerKind, Choice
from ralis_backend.online.export import export_project, inert, write_model
from ralis_backend.online.export.areas import outline
from ralis_backend.online.export.labelled_images import as_plain_image
from ralis_backend.online.export.yolo_seg import yaml_text
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Version
from ralis_backend.online.tool import ClassLabel, ToolUnavailable
from tests.online.exported import SIZE, START, UID, annotation


def test_png_export_opens_as_a_dataset_with_the_same_masks(grown, tmp_path):
    assert grown.export(tmp_path / "out") == 5
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.class_names == ("road", "a & b", "sky")
    assert len(dataset.split("d_v")) == 4
    assert [sample.key for sample in dataset.split("d_r")] == ["val/frame_5"]
    for key, sample in dataset.samples.items():
        task_id = int(key[-1])
        np.testing.assert_array_equal(sample.mask(), grown.masks[task_id])
        assert sample.content() == grown.files[task_id]


def test_agreement_of_two_annotators_is_exported_by_region(grown, tmp_path):
    grown.export(tmp_path / "alone")
    assert not (tmp_path / "alone/agreement.csv").exists()
    project = grown.store.projects.get(UID)
    (crop,) = [it for it in grown.store.queue.all(project.id) if it.task_id == 100]
    image = grown.store.images.get(crop.image_id)
    other = replace(annotation(90, crop.task_id), annotator="=bob")
    row = grown.store.annotations.put(project, "8.1", other, image, crop)
    patch = grown.masks[1][crop.region.slices].copy()
    patch[patch == 2] = 1
    grown.store.labels.put(row, [NewLabel(crop.region, patch)], {})
    grown.export(tmp_path / "out")
    with (tmp_path / "out/agreement.csv").open() as file:
        (found,) = csv.DictReader(file)
    ann, counted = grown.masks[1][crop.region.slices], patch != VOID
    assert (found["image"], found["row"], found["width"]) == ("train/frame_1", "0", "16")
    assert (found["annotator"], found["other_annotator"]) == ("'=bob", "ann@example.com")
    assert int(found["pixels"]) == counted.sum()
    assert float(found["pixel_agreement"]) == pytest.approx(
        (ann == patch)[counted].mean(), abs=1e-4
    )
    assert float(found["iou road"]) == 1
    assert float(found["iou a & b"]) == pytest.approx(
        (ann == 1).sum() / (patch == 1).sum(), abs=1e-4
    )
    assert float(found["iou sky"]) == 0
    assert 0 < float(found["kappa"]) < 1


def test_provenance_tells_where_each_region_came_from(grown, tmp_path):
    grown.export(tmp_path / "out")
    with (tmp_path / "out/provenance.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert rows[0] == {
        "image": "train/frame_1", "task": "1",
        "address": "/data/upload/7/0123abcd-frame_1.jpg",
        "row": "0", "col": "0", "height": "16", "width": "16",
        "annotator": "ann@example.com", "time": "2025-01-01T00:10:00+00:00", "seconds": "12.500",
        "round": "2", "strategy": "entropy", "version": "v1", "is_skipped": "0",
        "is_starred": "0", "is_used": "1", "rest": "", "useful": "1",
    }  # fmt: skip
    assert [row["useful"] for row in rows] == ["1", "0"] * 5


def test_provenance_has_a_column_for_a_question_of_another_package(grown, tmp_path, monkeypatch):
    monkeypatch.setitem(ANSWER_KINDS, "stars", AnswerKind("stars", (Choice("many", "4", 5),)))
    (project,) = grown.store.projects.all()
    label = next(it for it in grown.store.labels.of(project.id) if not it.is_skipped)
    row = grown.store.annotations.put(
        project,
        "8.1",
        replace(annotation(10, 100), results=[{"id": "changed"}]),
        grown.store.images.get(label.image_id),
        None,
    )
    grown.store.labels.put(row, [NewLabel(label.region, None)], {"stars": 5})
    grown.export(tmp_path / "out")
    with (tmp_path / "out/provenance.csv").open() as file:
        told = {(row["useful"], row["stars"]) for row in csv.DictReader(file)}
    assert told == {("", "5"), ("1", ""), ("0", "")}


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1", "|cmd", "%0A=1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_the_provenance_is_a_formula(grown, tmp_path, monkeypatch, text):
    kind = AnswerKind("said", (Choice("many", "4", text),))
    monkeypatch.setitem(ANSWER_KINDS, "said", kind)
    (project,) = grown.store.projects.all()
    label = next(it for it in grown.store.labels.of(project.id) if not it.is_skipped)
    crop = grown.store.queue.all(project.id)[0]
    changed = replace(annotation(10, 100), annotator=text, results=[{"id": "changed"}])
    image = grown.store.images.get(label.image_id)
    row = grown.store.annotations.put(project, "8.1", changed, image, crop)
    grown.store.queue.change({crop.id: {"strategy": text}})
    grown.store.labels.put(row, [NewLabel(label.region, None)], {"said": text})
    grown.export(tmp_path / "out")
    content = (tmp_path / "out/provenance.csv").read_text()
    cells = [cell for line in csv.reader(content.splitlines()) for cell in line]
    assert len(content.splitlines()) == 11
    shown = "".join(character if character.isprintable() else " " for character in text)
    assert f"'{shown}" in cells
    assert shown not in cells
    assert text not in cells


def test_a_cell_that_is_no_formula_is_left_alone():
    for text in ("ann@example.com", "5-a", "a=b", "", "Zoë", "'x", "k-center"):
        assert inert(text) == text
    assert inert("two\nlines\x00\x1b[2J") == "two lines  [2J"


NASTY = [
    "\U0001f600", "\x7f", "\x85", "\u2028", "\ufeff", "\xa0", "\x1b", "a\nb", "a\tb", '"', "\\",
    "'", "- a", "a: b", "# c", "{a}", "[a]", "*a", "&a", "!a", "%a", "yes", "null", "1.0", "", " ",
    "~", "\\n", "\u202e", "\ue000", "a" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
def test_a_label_comes_back_from_yaml_as_it_is(text):
    assert yaml.safe_load(f"names:\n  0: {yaml_text(text)}\n") == {"names": {0: text}}


@settings(deadline=None, max_examples=50)
@given(text=st.text())
def test_any_label_comes_back_from_yaml(text):
    assert yaml.safe_load(f"a: {yaml_text(text)}\nb: 1\n") == {"a": text, "b": 1}


def test_the_yolo_export_names_the_classes_whatever_they_are(grown, tmp_path):
    names = ["\U0001f600 smile", "a\nval: /etc", '"quoted" \\ \x7f']
    labels = [ClassLabel(name, "#000000") for name in names]
    grown.store.projects.register(UID, 7, "<View />", labels, "Street")
    grown.export(tmp_path / "out", "yolo-seg")
    content = yaml.safe_load((tmp_path / "out/data.yaml").read_text(encoding="utf-8"))
    assert content["val"] == "images/val"
    assert set(names) <= set(content["names"].values())
    classes = json.loads((tmp_path / "out/classes.json").read_text(encoding="utf-8"))
    assert [it["name"] for it in classes["classes"]] == list(content["names"].values())


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")
def test_coco_export_gives_the_same_masks_through_pycocotools(grown, tmp_path):
    grown.export(tmp_path / "out", "coco")
    found = {}
    for split in ("train", "val"):
        coco = COCO(tmp_path / f"out/annotations/instances_{split}.json")
        assert [category["name"] for category in coco.cats.values()] == ["road", "a & b", "sky"]
        for image in coco.imgs.values():
            mask = np.full(SIZE, VOID, np.uint8)
            for entry in coco.imgToAnns[image["id"]]:
                area = coco.annToMask(entry).astype(bool)
                assert entry["area"] == area.sum()
                mask[area] = entry["category_id"] - 1
            assert (tmp_path / "out/images" / split / image["file_name"]).is_file()
            assert [0, 0, 16, 16] in image["labelled_boxes"]
            found[int(image["file_name"][6])] = mask
    for task_id, expected in grown.masks.items():
        np.testing.assert_array_equal(found[task_id], expected)


def test_yolo_export_has_a_polygon_per_area_inside_the_image(grown, tmp_path):
    grown.export(tmp_path / "out", "yolo-seg")
    assert (tmp_path / "out/data.yaml").read_text() == (
        'train: images/train\nval: images/val\nnames:\n  0: "road"\n  1: "a & b"\n  2: "sky"\n'
    )
    lines = (tmp_path / "out/labels/train/frame_1.txt").read_text().splitlines()
    assert lines
    for line in lines:
        class_index, *coordinates = line.split()
        assert class_index in "012"
        assert len(coordinates) >= 8
        assert len(coordinates) % 2 == 0
        assert all(0 <= float(value) <= 1 for value in coordinates)


def test_an_outline_covers_its_area_and_leaves_its_holes_out():
    import cv2

    area = np.zeros((30, 40), bool)
    area[4:24, 6:34] = True
    area[8:12, 10:20] = False
    area[15:20, 24:30] = False
    polygon = outline(area)
    drawn = np.zeros((300, 400), np.uint8)
    cv2.fillPoly(drawn, [np.round(polygon * 10).astype(np.int32)], 1)
    drawn = drawn.reshape(30, 10, 40, 10).mean(axis=(1, 3)) > 0.5
    np.testing.assert_array_equal(drawn, area)


def test_an_outline_of_one_pixel_has_a_surface():
    area = np.zeros((5, 5), bool)
    area[2, 3] = True
    polygon = outline(area)
    assert len(polygon) == 4
    assert np.abs(polygon.mean(axis=0) - [3.5, 2.5]).max() < 1e-9


def test_hf_export_loads_offline_with_the_same_masks(grown, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    grown.export(tmp_path / "out", "hf")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "validation"}
    for split in loaded.values():
        for row in split:
            task_id = int(row["name"][-1])
            np.testing.assert_array_equal(np.array(row["mask"]), grown.masks[task_id])
            assert row["image"].size == (SIZE[1], SIZE[0])


@pytest.mark.parametrize(
    ("name", "why"),
    [("precious.txt", "txt; choose"), (f"{PARTIAL}ab", "ab, which an export that was killed left")],
)
def test_nothing_is_overwritten(grown, tmp_path, name, why):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).touch()
    with pytest.raises(FileExistsError, match=f"not empty, it holds .*{why}"):
        grown.export(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


def test_an_empty_folder_is_taken(grown, tmp_path):
    (tmp_path / "out").mkdir()
    assert grown.export(tmp_path / "out") == 5
    assert (tmp_path / "out/classes.json").is_file()


def test_a_failed_export_leaves_nothing_behind(grown, tmp_path):
    files = grown.files

    def image(task):
        if task.id == 4:
            raise ToolUnavailable("Label Studio does not answer")
        return files[task.id]

    target = tmp_path / "exports"
    with pytest.raises(ToolUnavailable):
        export_project(grown.store, image, UID, target / "out")
    assert list(target.iterdir()) == []


def test_an_image_that_changed_since_it_was_labelled_is_named_and_the_others_are_written(
    grown, tmp_path, caplog
):
    grown.files[2] = encode_png(np.zeros((10, 10, 3), np.uint8))
    assert grown.export(tmp_path / "out") == 4
    assert "task 2: the image is 10 x 10 pixels" in caplog.text
    assert "made at 40 x 56" in caplog.text
    used = {row["image"] for row in _provenance(tmp_path / "out")}
    assert len(used) == 4
    for task_id in grown.files:
        grown.files[task_id] = b"bad"
    with pytest.raises(ValueError, match=r"none of 5 labelled images can be read: task 1"):
        grown.export(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_label_whose_mask_is_lost_is_left_out_and_made_again(grown, tmp_path):
    project = grown.store.projects.get(UID)
    label = next(label for label in grown.store.labels.of(project.id) if not label.is_skipped)
    grown.store.blobs.path(label.mask_key).write_bytes(b"cut")
    grown.store.projects.change(project.id, is_sync_requested=False)
    before = grown.masks[label.image_id].copy()
    before[label.region.slices] = VOID
    assert grown.export(tmp_path / "out") == 5
    written = {path.stem: path for path in (tmp_path / "out/masks").rglob("*.png")}
    found = [mask_from_png(path.read_bytes()) for path in written.values()]
    assert any((mask == before).all() for mask in found)
    unused = [row for row in _provenance(tmp_path / "out") if row["is_used"] == "0"]
    assert [label.region.row, label.region.col] in [
        [int(row["row"]), int(row["col"])] for row in unused
    ]
    assert [row.id for row in grown.store.annotations.failed(project.id)] == [
        label.annotation_row_id
    ]
    assert grown.store.projects.get(UID).is_sync_requested


def _provenance(folder):
    with (folder / "provenance.csv").open() as file:
        return list(csv.DictReader(file))


def test_an_unknown_format_names_those_there_are(grown, tmp_path):
    with pytest.raises(ValueError, match="png, coco, yolo-seg, hf, coco-polygon"):
        grown.export(tmp_path / "out", "voc")


def test_a_project_without_labels_says_what_to_do(tmp_path):
    store = Store.open(f"sqlite:///{tmp_path}/ralis.db", tmp_path / "blobs")
    store.projects.register(UID, 7, "<View/>", [ClassLabel("road", "#804080")], "Street")
    with pytest.raises(ValueError, match="no labelled region yet"):
        export_project(store, lambda task: b"", UID, tmp_path / "out")
    with pytest.raises(ValueError, match="no trained version yet"):
        write_model(store, store.projects.get(UID), tmp_path / "out")
    store.close()


@pytest.mark.e2e  # writing ONNX takes a while
def test_the_model_is_written_as_safetensors_and_onnx(grown, tmp_path, tiny_segmenters):
    import onnxruntime

    store = grown.store
    project = store.projects.get(UID)
    segmenter = build(tiny_segmenters)
    segmenter.save(store.blobs.path("weights/1/v1.safetensors"))
    version = Version(
        project_id=project.id, number=1, is_accepted=True, num_labels=10, metrics={},
        weights_key="weights/1/v1.safetensors", created_at=START,
    )  # fmt: skip
    store.versions.add(version, current_version=1)
    export_project(store, grown.image, UID, tmp_path / "out", has_model=True)
    folder = tmp_path / "out/model"
    assert load(folder / "segmenter.safetensors").num_classes == 3
    session = onnxruntime.InferenceSession(folder / "segmenter.onnx")
    assert len(session.get_inputs()) == 1
    names = [c["name"] for c in json.loads((folder / "classes.json").read_text())["classes"]]
    assert names == ["road", "a & b", "sky"]


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P"])
def test_unusual_images_become_plain_pngs(mode):
    buffer = io.BytesIO()
    picture = PillowImage.new("RGB", (9, 7), (200, 10, 10)).convert(mode)
    picture.save(buffer, "TIFF" if mode == "CMYK" else "PNG")
    content, suffix, size = as_plain_image(buffer.getvalue())
    assert (suffix, size) == (".png", (7, 9))
    with PillowImage.open(io.BytesIO(content)) as image:
        assert image.mode == "RGB"


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3), (7, 9, 4)])
def test_an_image_of_16_bits_is_written_with_the_8_that_people_saw(shape):
    """Pillow opens colours of 16 bits as if they had 8; other readers would see 16."""
    _, encoded = cv2.imencode(
        ".png", np.arange(np.prod(shape), dtype=np.uint16).reshape(shape) * 99
    )
    content, suffix, size = as_plain_image(encoded.tobytes())
    assert (suffix, size) == (".png", (7, 9))
    assert content[24] == 8
    np.testing.assert_array_equal(decode_image(content), decode_image(encoded.tobytes()))


def test_a_turned_photo_is_written_upright():
    buffer = io.BytesIO()
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    PillowImage.new("RGB", (9, 7)).save(buffer, "JPEG", exif=exif)
    _, suffix, size = as_plain_image(buffer.getvalue())
    assert (suffix, size) == (".png", (9, 7))


def test_masks_are_indices_in_a_palette(grown, tmp_path):
    grown.export(tmp_path / "out")
    path = tmp_path / "out/masks/train/frame_1.png"
    with PillowImage.open(path) as image:
        assert image.mode == "P"
        assert tuple(image.getpalette()[:3]) == (128, 64, 128)
    assert mask_from_png(path.read_bytes()).dtype == np.uint8


@pytest.fixture
def with_background(grown):
    """The same, where "road", the first class, is what annotators leave unpainted."""
    classes = [ClassLabel("a & b", "red"), ClassLabel("sky", "#0000FF")]
    grown.store.projects.register(UID, 7, "<View>2</View>", classes, "", None, "road")
    return grown


@pytest.mark.parametrize("format_name", ["png", "coco", "yolo-seg", "hf"])
def test_every_export_says_which_class_is_background(with_background, tmp_path, format_name):
    with_background.export(tmp_path / "out", format_name)
    content = json.loads((tmp_path / "out/classes.json").read_text())
    assert content["background"] == 0
    assert [it["name"] for it in content["classes"]] == ["road", "a & b", "sky"]


def test_masks_keep_the_background_s_index_and_open_as_a_dataset(with_background, tmp_path):
    with_background.export(tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.background == 0
    for key, sample in dataset.samples.items():
        np.testing.assert_array_equal(sample.mask(), with_background.masks[int(key[-1])])


def test_background_is_no_category_of_coco(with_background, tmp_path):
    with_background.export(tmp_path / "out", "coco")
    content = json.loads((tmp_path / "out/annotations/instances_train.json").read_text())
    assert [(it["id"], it["name"]) for it in content["categories"]] == [(2, "a & b"), (3, "sky")]
    assert {it["category_id"] for it in content["annotations"]} == {2, 3}


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")
def test_void_is_told_from_background_in_coco(with_background, tmp_path):
    with_background.masks[1][2:5, 3:9] = VOID
    store = with_background.store
    (project,) = store.projects.all()
    image = next(it for it in store.images.of(project.id) if it.task_id == 1)
    source = replace(annotation(500, 100), results=[{"id": "new"}])
    row = store.annotations.put(project, "8.1", source, image, None)
    regions = [it.region for it in store.labels.of(project.id) if it.image_id == image.id]
    labels = [NewLabel(it, with_background.masks[1][it.slices].copy()) for it in regions]
    store.labels.put(row, labels, {})
    with_background.export(tmp_path / "out", "coco")
    coco = COCO(tmp_path / "out/annotations/instances_train.json")
    (shown,) = (it for it in coco.imgs.values() if it["file_name"] == "frame_1.jpg")
    mask = np.where(coco_mask.decode(shown["labelled_area"]) > 0, 0, VOID)
    for entry in coco.imgToAnns[shown["id"]]:
        mask[coco.annToMask(entry) > 0] = entry["category_id"] - 1
    np.testing.assert_array_equal(mask, with_background.masks[1])


def test_yolo_numbers_its_classes_without_the_background(with_background, tmp_path):
    with_background.export(tmp_path / "out", "yolo-seg")
    content = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert content["names"] == {0: "a & b", 1: "sky"}
    lines = (tmp_path / "out/labels/train/frame_1.txt").read_text().splitlines()
    assert {line.split()[0] for line in lines} == {"0", "1"}


def test_an_image_with_nothing_but_background_has_no_object(with_background, tmp_path):
    store = with_background.store
    (project,) = store.projects.all()
    for label in store.labels.of(project.id):
        mask = np.zeros((label.region.height, label.region.width), np.uint8)
        row = store.annotations.put(
            project,
            "8.1",
            replace(annotation(500 + label.id, 100), results=[{"id": "new"}]),
            store.images.get(label.image_id),
            None,
        )
        store.labels.put(row, [NewLabel(label.region, mask)], {})
    with_background.export(tmp_path / "yolo", "yolo-seg")
    assert (tmp_path / "yolo/labels/train/frame_1.txt").read_text() == ""
    with_background.export(tmp_path / "coco", "coco")
    content = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    assert content["annotations"] == []
    assert len(content["images"]) == 5
