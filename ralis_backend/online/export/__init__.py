"""The grown dataset: what was labelled so far, written to a folder in a format others read.

`png` is the layout of our datasets and loses nothing; `coco`, `yolo-seg` and `hf` are for other
programs. Every format carries `README.md`, `classes.json` and `provenance.csv`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import astuple
from pathlib import Path
from typing import Any

from ralis_backend.core.files import PARTIAL, check_folder, writing_folder
from ralis_backend.core.regions import VOID
from ralis_backend.core.segmenter import DEFAULT_SPEC
from ralis_backend.core.segmenter.onnx import export_onnx
from ralis_backend.online.answers import ANSWER_KINDS, Answer
from ralis_backend.online.export.agreement_csv import write_agreement
from ralis_backend.online.export.cells import inert
from ralis_backend.online.export.formats import FORMATS
from ralis_backend.online.export.guide import Summary, write_guide
from ralis_backend.online.export.labelled_images import ExportedImage, LabelledImages, colors_of
from ralis_backend.online.file_names import shown_address
from ralis_backend.online.labels import RegionLabel
from ralis_backend.online.pictures import describe_rule
from ralis_backend.online.segmenters import load_segmenter
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import ToolTask

__all__ = [
    "FORMATS",
    "ExportedImage",
    "export_project",
    "inert",
    "refuse_non_empty",
    "write_model",
]

PROVENANCE_COLUMNS = (
    "image", "task", "address", "row", "col", "height", "width", "annotator", "time", "seconds",
    "round", "strategy", "version", "is_skipped", "is_starred", "is_used",
)  # fmt: skip


def export_project(
    store: Store,
    images: Callable[[ToolTask], bytes],
    uid: str,
    out: Path,
    format_name: str = "png",
    on_image: Callable[[int, int], None] | None = None,
    *,
    has_model: bool = False,
    model_version: int | None = None,
) -> int:
    """Write every image that has a labelled region, with its mask, VOID where nothing is labelled.

    Images held out by the project become the validation split. The folder appears only when it is
    complete; one that is there is filled at the end. What cannot be read is left out and logged.

    Args:
        store: what is known of the project.
        images: gives the bytes of a task's image file.
        uid: of the project.
        out: a folder that does not exist yet, or is empty.
        format_name: one of `FORMATS`.
        on_image: told how many of how many images are written.
        has_model: also write the segmenter in use, in the folder `model`.
        model_version: that of this version instead.

    Returns:
        The number of images written.

    Raises:
        ValueError: if the format or the project is unknown, nothing is labelled yet, or none of
            the labelled images can be read.
        FileExistsError: if `out` holds anything.
        OSError: if nothing can be written there.
    """
    if format_name not in FORMATS:
        raise ValueError(f"unknown format {format_name!r}; choose one of {', '.join(FORMATS)}")
    refuse_non_empty(out)
    project = store.projects.get(uid)
    labelled = LabelledImages(store, project, images)
    if not len(labelled):
        raise ValueError(
            f"project {project.tool_id} has no labelled region yet; label and submit some, or run "
            "`ralis connect --project ID` to read what is in Label Studio"
        )
    with writing_folder(out) as partial:
        if has_model:
            write_model(store, project, partial / "model", number=model_version)
        summary = Summary()
        images_of = summary.counted(_counted(labelled, on_image))
        FORMATS[format_name](images_of, labelled.classes, partial)
        title, rule = project.title or project.uid, describe_rule(project)
        write_guide(partial, title, labelled.classes, summary, rule, now())
        _write_json(partial / "classes.json", _classes_json(project))
        every = store.labels.every(project.id)
        answers = store.answers.of(project.id)
        _write_provenance(partial / "provenance.csv", labelled, every, answers)
        write_agreement(partial / "agreement.csv", labelled, every)
    return len(labelled) - len(labelled.left_out)


def write_model(
    store: Store,
    project: Project,
    out: Path,
    size: tuple[int, int] = (256, 256),
    number: int | None = None,
) -> None:
    """Write the segmenter in use as `segmenter.safetensors` and `segmenter.onnx`.

    Where its weights are damaged, the nearest version before it is written.

    Args:
        store: what is known of the project.
        project: whose segmenter is written.
        out: a folder; made if missing.
        size: height and width with which the ONNX file is traced; both stay variable.
        number: of another version, which is written or none.

    Raises:
        ValueError: if there is no such version, or none that is trained and whose weights can be
            used.
    """
    wanted = project.current_version if number is None else number
    version = store.versions.find(project.id, wanted)
    if number is not None and (version is None or version.is_dropped):
        raise ValueError(
            f"project {project.tool_id} has no version v{number} whose weights are kept; "
            f"`ralis versions --project {project.tool_id}` lists them"
        )
    if version is None or version.weights_key is None:
        raise ValueError(
            f"project {project.tool_id} has no trained version yet; label some regions first, or "
            "export without the model"
        )
    usable = load_segmenter(store, project, version, DEFAULT_SPEC, seed=0, device="cpu")
    is_misplaced = bool(usable.damage) and number is not None
    if usable.version is None or usable.version.weights_key is None or is_misplaced:
        raise ValueError(f"{version.name} cannot be exported: {usable.damage[version.number]}")
    segmenter, version = usable.segmenter, usable.version
    out.mkdir(parents=True, exist_ok=True)
    segmenter.save(
        out / "segmenter.safetensors",
        {"version": version.name, "classes": list(project.class_names)},
    )
    export_onnx(segmenter, out / "segmenter.onnx", size)
    _write_json(out / "classes.json", _classes_json(project))
    # What left the house stays: its weights are kept whatever their age.
    store.versions.change(version.id, metrics={"exported_at": now().isoformat()})


def refuse_non_empty(out: Path) -> None:
    """Return if an export can be written to `out`; nothing is overwritten.

    Raises:
        FileExistsError: if it is a file or holds anything.
        OSError: if nothing can be written there.
    """
    if out.is_dir() and (first := next(out.iterdir(), None)):
        rest = ", which an export that was killed left" if first.name.startswith(PARTIAL) else ""
        raise FileExistsError(
            f"{out} is not empty, it holds {first.name}{rest}; choose a new folder or empty it"
        )
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; choose a new folder")
    check_folder(out)


def _counted(
    labelled: LabelledImages, on_image: Callable[[int, int], None] | None
) -> Iterable[ExportedImage]:
    for number, image in enumerate(labelled, start=1):
        yield image
        if on_image is not None:
            on_image(number, len(labelled))


def _classes_json(project: Project) -> dict[str, Any]:
    return {
        "name": project.title or project.uid,
        "void": VOID,
        "background": project.background_class,
        "classes": [
            {"id": index, "name": entry["name"], "color": list(color)}
            for index, (entry, color) in enumerate(
                zip(project.classes, colors_of(project), strict=True)
            )
        ],
    }


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_provenance(
    path: Path,
    labelled: LabelledImages,
    labels: Iterable[RegionLabel],
    answers: Iterable[Answer],
) -> None:
    said = {(answer.annotation_row_id, answer.kind): answer.value for answer in answers}
    used = {label.id for label in labelled.labels} - labelled.lost_labels.keys()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)  # else `a;=1` is two cells to some
        writer.writerow([*PROVENANCE_COLUMNS, *map(inert, ANSWER_KINDS)])
        for label in labels:
            if label.image_id not in labelled.keys or label.image_id in labelled.left_out:
                continue
            region, suggested = label.region, label.version is not None
            image = labelled.images[label.image_id]
            writer.writerow([
                inert(labelled.keys[label.image_id]), image.task_id,
                inert(shown_address(image.ref)), *astuple(region),
                inert(label.annotator), label.created_at.isoformat(),
                "" if label.lead_time_s is None else f"{label.lead_time_s:.3f}",
                "" if label.round is None else label.round, inert(label.strategy or ""),
                f"v{label.version}" if suggested else "", int(label.is_skipped),
                int(label.is_starred), int(label.id in used),
                *(_cell(said.get((label.annotation_row_id, kind))) for kind in ANSWER_KINDS),
            ])  # fmt: skip


def _cell(answer: Any) -> str:
    """1 and 0 for yes and no, JSON for anything else but text; empty without an answer."""
    if answer is None or isinstance(answer, str):
        return inert(answer or "")
    return str(int(answer)) if isinstance(answer, bool) else json.dumps(answer)
