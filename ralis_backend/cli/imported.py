"""Which tasks of a project show which pictures of a dataset: their files say, names alone do not.

Cameras give the same names to other pictures: with a mask of the wrong one a network learns noise.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ralis_backend.cli.upload_names import former_stems, has_mark, marked, without_underscores
from ralis_backend.core.images import decode_image
from ralis_backend.online.file_names import shown_address, uploaded_name
from ralis_backend.online.tool import ToolError, ToolUnavailable

if TYPE_CHECKING:
    import numpy as np

    from ralis_backend.labelstudio.tool import LabelStudioTool
    from ralis_backend.offline.datasets import Sample
    from ralis_backend.online.tool import ToolTask


def file_of(address: str) -> str:
    """The name that Label Studio gave to an uploaded file: no two of a server have the same."""
    return unquote(address).rpartition("/")[2]


def imported(
    tool: LabelStudioTool,
    tasks: Sequence[ToolTask],
    samples: Sequence[Sample],
    say: Callable[[str], None],
) -> dict[int, Sample]:
    """The tasks that show a picture of the dataset, by their ids.

    Marked names say what the file is. The files of tasks whose names have no mark, and are those of
    a picture, are read once and compared, bytes first, then pixels.

    Args:
        tool: reads their files.
        tasks: all of the project.
        samples: of the dataset.
        say: told how far it is.

    Raises:
        ValueError: if the file of a task cannot be read that has a picture's name.
        ToolUnavailable: if Label Studio does not answer.
    """
    names = [uploaded_name(task.image) for task in tasks]
    by_mark = {marked(it): it for it in samples} if any(map(has_mark, names)) else {}
    by_stem = defaultdict[str, list["Sample"]](list)
    for sample in samples:
        for stem in former_stems(sample):
            by_stem[stem].append(sample)
    found, unmarked = dict[int, "Sample"](), list[tuple["ToolTask", list["Sample"]]]()
    for task, name in zip(tasks, names, strict=True):
        stem = PurePosixPath(name).stem
        if name in by_mark:
            found[task.id] = by_mark[name]
        elif alike := by_stem.get(stem) or by_stem.get(without_underscores(stem)):
            unmarked.append((task, alike))
    files, keys = _Files(), {sample.key for sample in found.values()}
    for number, (task, alike) in enumerate(unmarked, start=1):
        same = files.same(_read(tool, task, alike), alike)
        if same:
            found[task.id] = next((it for it in same if it.key not in keys), same[0])
            keys.add(found[task.id].key)
        say(f"Comparing with what the project has: {number} of {len(unmarked)}")
    return found


def _read(tool: LabelStudioTool, task: ToolTask, alike: Sequence[Sample]) -> bytes:
    try:
        return tool.image(task)
    except ToolUnavailable:
        raise
    except (ToolError, ValueError) as error:
        raise ValueError(
            f"task {task.id} shows a file called like {alike[0].image_path.name} of the dataset, "
            f"{shown_address(task.image)}, and nobody can tell whether it is that: {error}. "
            "Expected a file that can be read; mend that, or delete the task"
        ) from error


class _Files:
    """What samples' files hold, each read once."""

    def __init__(self) -> None:
        self._bytes: dict[str, str] = {}
        self._pixels: dict[str, str] = {}

    def same(self, content: bytes, samples: Iterable[Sample]) -> list[Sample]:
        """Those of the samples whose picture is that of a file."""
        samples = list(samples)
        digest = hashlib.sha256(content).hexdigest()
        same = [sample for sample in samples if self._of_bytes(sample) == digest]
        if same:
            return same
        try:
            pixels = _digest(decode_image(content))
        except ValueError:  # no picture: none of ours
            return []
        return [sample for sample in samples if self._of_pixels(sample) == pixels]

    def _of_bytes(self, sample: Sample) -> str:
        if sample.key not in self._bytes:
            self._bytes[sample.key] = hashlib.sha256(sample.content()).hexdigest()
        return self._bytes[sample.key]

    def _of_pixels(self, sample: Sample) -> str:
        if sample.key not in self._pixels:
            self._pixels[sample.key] = _digest(sample.image())
        return self._pixels[sample.key]


def _digest(image: np.ndarray) -> str:
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()
