"""Samples of a dataset -> the names of their uploads, which Label Studio keeps as they are."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ralis_backend.offline.datasets import Sample

MAX_CHARACTERS = 60
"""Of a name without suffix: Label Studio keeps 100 with its own folder and prefix."""
TAKEN = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
"""Images that Label Studio takes as uploads; no TIFF."""
MARK_DIGITS = 12
"""Of a mark, hexadecimal: of 100,000 names that begin alike, two are equal in 1 of 50,000 cases."""
UNMARKED = MAX_CHARACTERS - MARK_DIGITS - 1
"""Characters of a name in front of its mark."""


def file_names(samples: Sequence[Sample]) -> dict[str, Sample]:
    """The name under which each image is uploaded: unique, and one that Label Studio keeps.

    It is the image's own, its folder in front where two are called alike. One that is too long, or
    like another one, has a mark instead, see `marked`; so has what is sent as it is shown here, by
    a range that further images may change.
    """
    counts = Counter(Path(sample.key).name for sample in samples)
    stems = [_stem(sample, has_folder=counts[Path(sample.key).name] > 1) for sample in samples]
    names = [f"{stem}{_suffix(it)}" for stem, it in zip(stems, samples, strict=True)]
    uses = Counter(names)
    return {
        name
        if len(stem) <= MAX_CHARACTERS and uses[name] == 1 and not _is_shown_by_a_range(sample)
        else marked(sample): sample
        for name, stem, sample in zip(names, stems, samples, strict=True)
    }


def marked(sample: Sample) -> str:
    """The name that no other picture has: it ends in a mark of the sample's key and file."""
    mark = hashlib.sha256(sample.key.encode() + b"\0" + sample.content()).hexdigest()[:MARK_DIGITS]
    return f"{_stem(sample)[:UNMARKED]}-{mark}{_suffix(sample)}"


def has_mark(name: str) -> bool:
    """Whether a name may end in a mark."""
    return re.search(rf"-[0-9a-f]{{{MARK_DIGITS}}}\.\w+$", name) is not None


def former_stems(sample: Sample) -> set[str]:
    """Names without suffix under which it may have been uploaded without a mark.

    Which of them depends on what else was in the dataset. Long names used to be cut, and one `_`
    after the other put behind those that were equal then.
    """
    cuts = {_stem(sample, has_folder=it, max_characters=MAX_CHARACTERS) for it in (False, True)}
    return cuts | {_stem(sample), _stem(sample, has_folder=True)}


def without_underscores(stem: str) -> str:
    """What is in front of the `_` of `former_stems`, and of what Label Studio put behind a cut."""
    behind = r"_+([A-Za-z0-9]{7})?$" if len(stem) > MAX_CHARACTERS else r"_+$"
    return re.sub(behind, "", stem)


def _stem(sample: Sample, *, has_folder: bool = False, max_characters: int | None = None) -> str:
    """What Label Studio keeps of a name, so that the file is found again: letters of any script.

    It drops what is neither letter, digit, `_`, `.` nor `-`, vowel signs of some scripts among it.
    """
    name = sample.key if has_folder else Path(sample.key).name
    composed = unicodedata.normalize("NFC", name)
    letters = "".join(c for c in composed if unicodedata.category(c)[0] != "M")
    return re.sub(r"[^\w.-]+", "_", letters)[:max_characters].strip("._-") or "image"


def _suffix(sample: Sample) -> str:
    return sample.image_path.suffix.lower() if is_taken(sample) else ".png"


def is_taken(sample: Sample) -> bool:
    """Whether Label Studio takes its file; else a PNG of what it shows is sent."""
    return sample.image_path.suffix.lower() in TAKEN


def _is_shown_by_a_range(sample: Sample) -> bool:
    return sample.rule is not None and not is_taken(sample)
