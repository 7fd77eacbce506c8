import csv
import json
import re

import cv2
import datasets
import numpy as np
import pytest
import yaml
from PIL import Image as PillowImage

from ralis_backend.online.export import FORMATS
from ralis_backend.online.export.guide import plain
from ralis_backend.online.tool import ClassLabel
from tests.online.exported import UID

ODD = ["\U0001f33e crop, wheat", 'so "called"\nsoil', "a|b", "<b>weed</b>", "`x`", "日本"]


@pytest.fixture
def odd(grown):
    """Labels with an emoji, commas, quotes, line ends and signs of Markdown and HTML."""
    classes = [ClassLabel(name, f"#00000{i}") for i, name in enumerate(ODD)]
    project = grown.store.projects.get(UID)
    table = [{"name": label.name, "color": label.color, "is_active": True} for label in classes]
    grown.store.projects.change(project.id, classes=table, title="Fields | north\n# 1")
    return grown


def guide(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")
@pytest.mark.parametrize("name", FORMATS)
def test_the_lines_that_load_an_export_load_it(odd, tmp_path, name, monkeypatch, capsys):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    odd.export(tmp_path / "out", name)
    (code,) = re.findall(r"```python\n(.*?)```", guide(tmp_path / "out"), re.DOTALL)
    monkeypatch.chdir(tmp_path / "out")
    exec(code, {})  # the lines are ours: the guide's, as people paste them
    printed = capsys.readouterr().out
    for task in (1, 2, 3, 4):
        assert f"frame_{task}" in printed


@pytest.mark.parametrize("name", FORMATS)
def test_the_guide_says_how_much_there_is_and_what_void_means(odd, tmp_path, name):
    odd.export(tmp_path / "out", name)
    text = guide(tmp_path / "out")
    assert "# Fields \\| north \\# 1: labelled regions\n" in text
    labelled = {task: int((mask != 255).sum()) for task, mask in odd.masks.items()}
    share = 100 * sum(labelled[task] for task in (1, 2, 3, 4)) / (4 * 40 * 56)
    assert f"| train | 4 | 8 | {share:.1f} % |" in text
    assert f"| val | 1 | 2 | {100 * labelled[5] / (40 * 56):.1f} % |" in text
    painted = sum(int((odd.masks[task] == 0).sum()) for task in (1, 2, 3, 4))
    assert f"| 0 | \U0001f33e crop, wheat | #000000 | {painted:,} |" in text
    assert '| 1 | so "called" soil |' in text
    assert "| 2 | a\\|b |" in text
    assert "VOID" in text
    assert "this project has no background" in text


def test_the_guide_names_the_background(odd, tmp_path):
    project = odd.store.projects.get(UID)
    table = [entry | {"background": "setting"} if i == 2 else entry
             for i, entry in enumerate(project.classes)]  # fmt: skip
    odd.store.projects.change(project.id, classes=table)
    odd.export(tmp_path / "out")
    assert "labelled region\nare 2 (a\\|b), this project's background" in guide(tmp_path / "out")


@pytest.mark.parametrize("name", FORMATS)
def test_every_label_comes_back_as_it_is(odd, tmp_path, name):
    out = tmp_path / "out"
    odd.export(out, name)
    listed = json.loads((out / "classes.json").read_text(encoding="utf-8"))["classes"]
    assert [entry["name"] for entry in listed] == ODD
    if (out / "data.yaml").exists():
        names = yaml.safe_load((out / "data.yaml").read_text(encoding="utf-8"))["names"]
        assert list(names.values()) == ODD
    for path in (out / "annotations").glob("*.json"):
        content = json.loads(path.read_text())
        assert [it["name"] for it in content["categories"]] == ODD


def test_a_format_of_another_package_gets_the_guide_as_well(grown, tmp_path, monkeypatch):
    def write(images, classes, out):
        for image in images:
            (out / image.name).write_bytes(image.content)

    monkeypatch.setitem(FORMATS, "bare", write)
    grown.export(tmp_path / "out", "bare")
    assert "| train | 4 | 8 |" in guide(tmp_path / "out")


def test_the_front_matter_that_hugging_face_reads_stays_first(grown, tmp_path):
    grown.export(tmp_path / "out", "hf")
    text = guide(tmp_path / "out")
    assert text.startswith("---\nconfigs:\n")
    yaml.safe_load(text.split("---\n")[1])


def test_what_markdown_would_take_for_a_sign_is_shown():
    assert plain("a*b_c`d`|<i>\x1b[1m \n #") == ("a\\*b\\_c\\`d\\`\\|\\<i\\>\\\\x1b\\[1m \\#")


def test_provenance_has_the_task_and_its_address_without_secrets(grown, tmp_path):
    project = grown.store.projects.get(UID)
    signed = "https://me:pw@photos.example/get?file=写真.png&X-Amz-Signature=abcdef&token=t0ps3cret"
    image = grown.store.images.of(project.id)[0]
    grown.store.images.change(image.id, ref=signed)
    grown.export(tmp_path / "out")
    text = (tmp_path / "out/provenance.csv").read_text(encoding="utf-8")
    row = next(csv.DictReader(text.splitlines()))
    assert (row["image"], row["task"]) == ("train/写真", "1")
    assert row["address"] == ("https://photos.example/get?file=%E5%86%99%E7%9C%9F.png")
    assert not any(secret in text for secret in ("pw@", "abcdef", "t0ps3cret"))


def test_the_guide_says_how_deep_values_are_shown(grown, tmp_path):
    project = grown.store.projects.get(UID)
    image = grown.store.images.of(project.id)[0]
    _, encoded = cv2.imencode(".png", np.arange(40 * 56, dtype=np.uint16).reshape(40, 56))
    grown.files[image.task_id] = encoded.tobytes()
    grown.export(tmp_path / "out")
    found = re.search(
        r"rule: integers beyond 8 bits: (\d+) is black, (\d+) white", guide(tmp_path / "out")
    )
    assert found is not None
    assert found.groups() == ("0", "4095")  # 12 bits hold them
    with PillowImage.open(tmp_path / "out/images/train/frame_1.png") as written:
        assert written.mode == "RGB"
