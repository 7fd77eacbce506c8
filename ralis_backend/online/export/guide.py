"""The `README.md` of an export: what it is, what its values mean, how much there is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from ralis_backend.core.palette import hexadecimal
from ralis_backend.core.regions import VOID
from ralis_backend.core.text import printable, shortened
from ralis_backend.online.export.folder import write_file
from ralis_backend.online.export.labelled_images import SPLITS, ExportedClass, ExportedImage


@dataclass
class SplitSummary:
    """How much a split holds; `class_pixels` are those of each class, (256,) by mask value."""

    num_images: int = 0
    num_regions: int = 0
    class_pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))

    @property
    def labelled_share(self) -> float:
        """Share of the images' pixels that are labelled; 0 without images."""
        every = int(self.class_pixels.sum())
        return 1 - int(self.class_pixels[VOID]) / every if every else 0.0


class Summary:
    """How much each split of an export holds, counted while its images pass."""

    def __init__(self) -> None:
        self.splits: dict[str, SplitSummary] = defaultdict(SplitSummary)

    def counted(self, images: Iterable[ExportedImage]) -> Iterator[ExportedImage]:
        """The images as they are."""
        for image in images:
            split = self.splits[image.split]
            split.num_images += 1
            split.num_regions += len(image.regions)
            split.class_pixels += np.bincount(image.mask.ravel(), minlength=256)
            yield image

    def described(self) -> str:
        """One line: images and regions of each split."""
        return ", ".join(
            f"{name} {split.num_images} images with {split.num_regions} regions"
            for name, split in ((name, self.splits[name]) for name in SPLITS)
        )


def write_guide(
    out: Path,
    title: str,
    classes: Sequence[ExportedClass],
    summary: Summary,
    rule: str,
    moment: datetime,
) -> None:
    """Complete the folder's `README.md`, which its format may have begun.

    Args:
        out: the export's folder.
        title: of the project.
        classes: in the order of their values.
        summary: of what was written.
        rule: by which values of more than 8 bits are shown, in words.
        moment: when the labels were read.
    """
    path = out / "README.md"
    begun = path.read_text(encoding="utf-8") if path.exists() else ""
    front, rest = _front_matter(begun)
    parts = [
        f"{front}# {plain(title)}: labelled regions\n",
        _about(summary, moment),
        *([rest] if rest else []),
        _table(classes, summary),
        _MASKS.format(unpainted=_unpainted(classes)),
        _FILES.format(rule=plain(rule)),
    ]
    write_file(path, "\n".join(parts).encode())


def plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    line = shortened(printable(" ".join(text.split())), 200)
    return re.sub(r"([\\`*_{}\[\]<>|#~$])", r"\\\1", line)


def _front_matter(text: str) -> tuple[str, str]:
    found = re.match(r"---\n.*?\n---\n\n?", text, re.DOTALL)
    return (found[0], text[found.end() :]) if found else ("", text)


def _about(summary: Summary, moment: datetime) -> str:
    num_images = sum(split.num_images for split in summary.splits.values())
    rows = "".join(
        f"| {name} | {split.num_images} | {split.num_regions} | {_percent(split)} |\n"
        for name, split in ((name, summary.splits[name]) for name in SPLITS)
    )
    return (
        f"{num_images} images of which regions were labelled, exported by RALIS backend on "
        f"{moment:%Y-%m-%d %H:%M} UTC.\n\n"
        "| split | images | labelled regions | labelled pixels |\n| --- | --- | --- | --- |\n"
        f"{rows}\n"
        "`val` is every fifth labelled image: the project never trained on it, and judges its own "
        "versions by it.\nWhich regions are labelled was chosen by how much they would teach: they "
        "are no random sample, and a score\non `val` is no estimate for all images.\n"
    )


def _percent(split: SplitSummary) -> str:
    return f"{100 * split.labelled_share:.1f} %" if split.num_images else ""


def _table(classes: Sequence[ExportedClass], summary: Summary) -> str:
    lines = "".join(
        f"| {index} | {plain(label.name)} | {hexadecimal(label.color)} | "
        + " | ".join(f"{summary.splits[name].class_pixels[index]:,}" for name in SPLITS)
        + " |\n"
        for index, label in enumerate(classes)
    )
    heads = " | ".join(f"pixels in {name}" for name in SPLITS)
    return (
        f"## Classes\n\n| value | class | colour | {heads} |\n"
        f"| --- | --- | --- |{' --- |' * len(SPLITS)}\n{lines}\n"
        "`classes.json` has the same for programs.\n"
    )


def _unpainted(classes: Sequence[ExportedClass]) -> str:
    for index, label in enumerate(classes):
        if label.is_background:
            return (
                f"{index} ({plain(label.name)}), this project's background: nobody painted it or "
                "looks for\nit"
            )
    return "VOID as well: this project has no background, so they say nothing"


_MASKS = f"""\
## VOID and background

A mask holds one class per pixel, and {VOID} (VOID) where nothing is known: everything outside
labelled regions, and areas that annotators left open. VOID is not a class and not background:
leave it out of loss and scores, for example with
`torch.nn.CrossEntropyLoss(ignore_index={VOID})`. Pixels that nobody painted in a labelled region
are {{unpainted}}.
"""

_FILES = """\
## Images, names, provenance

Images are the original files where those are upright 8-bit RGB as JPEG or PNG; of all others
(turned by EXIF, grey, 16 bits, transparent, other formats) they are PNGs of what the network and
the annotators saw. The masks fit these files. The project's rule: {rule}.

A name is that of the original file, with what some file system does not take as `_`; where two
images have the same name, the later one has its task's number behind it. An image keeps its name
from one export to the next.

`provenance.csv` has a row for each labelled region: the image (`split/name`), its task's number
and address (without passwords, signatures and tokens), the region in pixels, who labelled it,
when and in how many seconds, in which round, chosen by which strategy and version, whether it was
skipped, whether it is the one in the mask (`is_used`; several people may have labelled a region),
and what they answered. Where several people painted one region, `agreement.csv` says how far they
agree.
"""
