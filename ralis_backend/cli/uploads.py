"""Images and masks of ours into a Label Studio project, for `ralis demo` and `ralis import`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from ralis_backend.cli.imported import file_of, imported
from ralis_backend.cli.upload_names import file_names, is_taken, marked
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

FILES_PER_UPLOAD = 50
"""Label Studio refuses more than 100 files in one request."""


def upload(
    client: LabelStudioClient,
    project_id: int,
    images: Mapping[str, Sample],
    say: Callable[[str], None],
) -> dict[str, Sample]:
    """Make a task of each image; `say` is told how far it is.

    Returns:
        The images by the names that Label Studio gave to their files, see `file_of`.
    """
    names, uploaded = list(images), dict[str, "Sample"]()
    for start in range(0, len(names), FILES_PER_UPLOAD):
        part = names[start : start + FILES_PER_UPLOAD]
        files = [(name, _content(images[name])) for name in part]
        paths = client.file_paths(project_id, client.upload_files(project_id, files))
        uploaded |= {file_of(path): images[name] for path, name in zip(paths, part, strict=True)}
        say(f"Uploading images: {start + len(part)} of {len(names)}")
    return uploaded


def _content(sample: Sample) -> bytes:
    """The file as it is, or a PNG of what it shows where Label Studio takes no such file."""
    from ralis_backend.core.images import encode_png

    return sample.content() if is_taken(sample) else encode_png(sample.image())


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
    gets no second one: safe to repeat. Another picture of the same name is no such image.

    Returns:
        The numbers of images uploaded and of annotations made.

    Raises:
        ValueError: if the dataset has masks, and a class that the project has no label for; or if
            nobody can tell whether a task shows a picture of the dataset, see `imported`.
    """
    config = parse_label_config(project.label_config)
    if any(sample.mask_path for sample in dataset.samples.values()):
        _check_labels(dataset, [label.name for label in config.labels], config.control_type)
    samples = list(dataset.samples.values())
    tasks = list(tool.tasks(project.id))
    shown = imported(tool, tasks, samples, say)
    present = {sample.key for sample in shown.values()}
    taken = {uploaded_name(task.image) for task in tasks}
    missing = {
        marked(sample) if name in taken else name: sample
        for name, sample in file_names(samples).items()
        if sample.key not in present
    }
    uploaded = upload(client, project.id, missing, say)
    for task in tool.tasks(project.id) if uploaded else ():
        if sample := uploaded.get(file_of(task.image)):
            shown[task.id] = sample
    to_do = _unannotated(client, project.id, shown)
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
    client: LabelStudioClient, project_id: int, shown: Mapping[int, Sample]
) -> dict[int, Sample]:
    """Those of the tasks that show a labelled image and have no annotation."""
    if not any(sample.mask_path for sample in shown.values()):
        return {}
    is_free = {task["id"]: not task["total_annotations"] for task in client.tasks(project_id)}
    return {
        task_id: sample
        for task_id, sample in shown.items()
        if sample.mask_path is not None and is_free.get(task_id)
    }
