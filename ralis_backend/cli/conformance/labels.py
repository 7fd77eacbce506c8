"""Tests of what deals with labels: export formats, and questions to annotators."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from ralis_backend.core.images import encode_png
from ralis_backend.core.regions import VOID, grid
from ralis_backend.labelstudio.payloads.hotkeys import LABEL_STUDIO_HOTKEYS
from ralis_backend.online.answers import ANSWER_KINDS, AnswerKind
from ralis_backend.online.export.formats import Writer
from ralis_backend.online.export.labelled_images import ExportedClass, ExportedImage

_SIZE = (32, 48)
_CLASSES = (ExportedClass("sea & sky", (0, 0, 255)), ExportedClass("sand", (200, 180, 90)))
_LABELS = tuple(each.name for each in _CLASSES)


def writes_images_into_the_folder(name: str, write: Writer) -> None:
    """Partly labelled ones, of both splits."""
    images = [_image("train", "one", 0), _image("val", "two", 1)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        out.mkdir()
        write(iter(images), _CLASSES, out)
        written = [path for path in out.rglob("*") if path.is_file()]
        outside = [path.name for path in Path(folder).iterdir() if path != out]
    if not written or outside:
        raise ValueError(
            f"of two images it wrote {len(written)} files into the folder, and {outside} beside "
            "it; expected files in the folder alone"
        )


FORMAT_TESTS = (writes_images_into_the_folder,)


def _image(split: str, name: str, seed: int) -> ExportedImage:
    rng = np.random.default_rng(seed)
    mask = np.full(_SIZE, VOID, np.uint8)
    mask[:16, :16] = rng.integers(0, 2, (16, 16))
    content = encode_png(rng.integers(0, 256, (*_SIZE, 3)).astype(np.uint8))
    return ExportedImage(split, name, ".png", content, mask, (grid(_SIZE, (16, 16))[0],))


def is_a_question_with_choices(name: str, kind: AnswerKind) -> None:
    """Stored under the name of its entry point."""
    if not isinstance(kind, AnswerKind) or not kind.asked(_LABELS, None):
        raise ValueError(
            f"it is {kind!r}, expected an AnswerKind of ralis_backend.online.answers with choices"
        )
    if kind.name != name:
        raise ValueError(
            f"its name is '{kind.name}', expected '{name}' as the entry point is called"
        )


def has_texts_and_keys_of_its_own(name: str, kind: AnswerKind) -> None:
    """Annotators tick by key, and answers are told apart by text."""
    others = [choice for other in ANSWER_KINDS.values() if other is not kind
              for choice in other.choices]  # fmt: skip
    in_control = [choice.text for other in ANSWER_KINDS.values() if other is not kind
                  for choice in other.choices if other.control == kind.control]  # fmt: skip
    texts, keys = in_control, [*LABEL_STUDIO_HOTKEYS, *(choice.hotkey for choice in others)]
    for choice in kind.choices:
        if choice.text in texts:
            raise ValueError(f"the text '{choice.text}' is taken in control '{kind.control}'")
        if choice.hotkey.lower() in keys:
            raise ValueError(
                f"the key '{choice.hotkey}' of '{choice.text}' is taken; expected none of "
                f"{' '.join(sorted(set(keys)))}, most of which are Label Studio's own"
            )
        texts, keys = [*texts, choice.text], [*keys, choice.hotkey]


def reads_what_is_ticked(name: str, kind: AnswerKind) -> None:
    """As a JSON value."""
    if kind.read([]) is not None:
        raise ValueError("it reads an answer where nothing is ticked, expected None")
    for choice in kind.asked(_LABELS, None):
        value = kind.read([choice.text])
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"'{choice.text}' is read as {value!r}, expected a JSON value"
            ) from error
        if value is None:
            raise ValueError(f"'{choice.text}' is read as no answer, expected a value")


ANSWER_TESTS = (is_a_question_with_choices, has_texts_and_keys_of_its_own, reads_what_is_ticked)
