"""Images and masks of ours into a Label Studio project, for `ralis demo` and `ralis import`."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from ralis_backend.labelstudio.payloads.label_config import (
    SEGMENTATION_CONTROLS,
    parse_label_config,
)
from ralis_backend.labelstudio.payloads.masks import known_to_results
from ralis_backend.online.file_names import uploaded_name
from ralis_backend.online.labels import says_something

if TYPE_CHECKING:
    from ralis_backend.labelstudio.client import LabelStudioClient
    from ralis_backend.labelstudio.tool import LabelStudioTool
    from ralis_backend.offline.datasets import Dataset, Sample
    from ralis_backend.online.tool import ToolProject

MAX_CHARACTERS = 60
"""Of a name without suffix: Label Studio keeps 100 with its own folder and prefix."""
TAKEN = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
"""Images that Label Studio takes as uploads; no TIFF."""
FILES_PER_UPLOAD = 50
"""Label Studio refuses more than 100 files in one request."""


def file_names(samples: Sequence[Sample]) -> dict[str, Sample]:
    """The name under which each image is uploaded: unique, and one that Label Studio keeps."""
    stems = [Path(sample.key).name for sample in samples]
    counts, names = Counter(stems), dict[str, "Sample"]()
    for sample, stem in zip(samples, stems, strict=True):
        name = stem if counts[stem] == 1 else sample.key
        safe = _kept(name)
        suffix = sample.image_path.suffix.lower()
        suffix = suffix if suffix in TAKEN else ".png"
        while f"{safe}{suffix}" in names:
            safe += "_"
        names[f"{safe}{suffix}"] = sample
    return names


def _kept(name: str) -> str:
    """What Label Studio keeps of a name, so that the file is found again: letters of any script.

    It drops what is neither letter, digit, `_`, `.` nor `-`, vowel signs of some scripts among it,
    and cuts long names.
    """
    composed = unicodedata.normalize("NFC", name)
    letters = "".join(c for c in composed if unicodedata.category(c)[0] != "M")
    return re.sub(r"[^\w.-]+", "_", letters)[:MAX_CHARACTERS].strip("._-") or "image"


def upload(
    client: LabelStudioClient,
    project_id: int,
    images: Mapping[str, Sample],
    say: Callable[[str], None],
) -> None:
    """Make a task of each image; `say` is told how far it is."""
    names = list(images)
    for start in range(0, len(names), FILES_PER_UPLOAD):
        part = names[start : start + FILES_PER_UPLOAD]
        client.upload_files(project_id, [(name, _content(images[name])) for name in part])
        say(f"Uploading images: {start + len(part)} of {len(names)}")


def _content(sample: Sample) -> bytes:
    """The file as it is, or a PNG of what it shows where Label Studio takes no such file."""
    from ralis_backend.core.images import encode_png

    is_taken = sample.image_path.suffix.lower() in TAKEN
    return sample.content() if is_taken else encode_png(sample.image())


def import_into(
    client: LabelStudioClient,
    tool: LabelStudioTool,
    project: ToolProject,
    dataset: Dataset,
    say: Callable[[str], None],
) -> tuple[int, int]:
    """Upload a dataset's images, and annotate each with its mask.

    Void stays void, also where the project has a background. The dataset's own background, where
    the project has no label of that name, stays unpainted. A mask that is all void is none.

    Images that the project has already are not uploaded again, and a task that has an annotation
    gets no second one: safe to repeat.

    Returns:
        The numbers of images uploaded and of annotations made.

    Raises:
        ValueError: if the dataset has masks, and a class that the project has no label for.
    """
    config = parse_label_config(project.label_config)
    if any(sample.mask_path for sample in dataset.samples.values()):
        _check_labels(dataset, [label.name for label in config.labels], config.control_type)
    names = file_names(list(dataset.samples.values()))
    present = {uploaded_name(task.image) for task in tool.tasks(project.id)}
    missing = {name: sample for name, sample in names.items() if name not in present}
    upload(client, project.id, missing, say)
    to_do = _unannotated(client, tool, project.id, names)
    num_annotated = 0
    for number, (task_id, sample) in enumerate(to_do.items(), start=1):
        mask = sample.mask()
        if says_something(mask):
            results = known_to_results(mask, dataset.class_names, config, key=f"import/{task_id}")
            client.annotate(task_id, result=results)
            num_annotated += 1
        say(f"Annotating: {number} of {len(to_do)}")
    return len(missing), num_annotated


def _check_labels(dataset: Dataset, labels: Sequence[str], control_type: str) -> None:
    unknown = [it.name for it in dataset.classes if it.name not in labels and not it.is_background]
    if unknown:
        tag = next(tag for tag, type_ in SEGMENTATION_CONTROLS.items() if type_ == control_type)
        lines = "\n".join(f"  <Label value={quoteattr(name)}/>" for name in unknown)
        raise ValueError(
            f"the project has no label for the classes {unknown} of {dataset.name}; add to its "
            f"{tag}:\n{lines}"
        )


def _unannotated(
    client: LabelStudioClient, tool: LabelStudioTool, project_id: int, names: Mapping[str, Sample]
) -> dict[int, Sample]:
    """The tasks that show a labelled image of ours and have no annotation."""
    is_free = {task["id"]: not task["total_annotations"] for task in client.tasks(project_id)}
    found = {}
    for task in tool.tasks(project_id):
        sample = names.get(uploaded_name(task.image))
        if sample is not None and sample.mask_path is not None and is_free.get(task.id):
            found[task.id] = sample
    return found
