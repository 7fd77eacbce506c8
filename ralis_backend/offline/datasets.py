"""Labelled datasets on disk: images, index masks, classes and fixed splits, checked when opened.

Layout: `images/<folder>/<name>.<jpg|png>`, `masks/<folder>/<name>.png`, `classes.json` and
`splits.json`, whose lists hold keys `<folder>/<name>`: those of `SPLITS`, or `train`, `val` and
`test` as an export has them. A plain folder of pictures is one, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from ralis_backend.core import weights
from ralis_backend.core.files import write_bytes, write_json, writing_folder
from ralis_backend.core.images import (
    ImageError,
    decode_image,
    deep_values,
    encode_png,
    mask_from_png,
)
from ralis_backend.core.intensity import WHOLE_RANGES, Kind, PixelRule, range_of
from ralis_backend.core.palette import Rgb, distinct_color, palette_png, rgb
from ralis_backend.core.regions import VOID
from ralis_backend.core.stored_images import file_facts

_Item = TypeVar("_Item")

SPLITS = ("d_s", "d_t", "d_v", "d_r", "test")
"""State set, pool for training policies, pool for using them, reward (validation) set, test set."""
USUAL_NAMES = {"train": "d_v", "val": "d_r"}
"""What the splits of an export are here."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

SAMPLE = 16
"""Pictures that the range of deeper ones is measured on."""
_EIGHT_BITS = (".jpg", ".jpeg", ".bmp", ".webp")


class DatasetError(ValueError):
    """The dataset cannot be used as it is; the message names the file and what to change."""


@dataclass(frozen=True)
class DatasetClass:
    """A class: its name and its colour (red, green, blue).

    `is_background`: what annotators leave unpainted; nobody looks for it.
    """

    name: str
    color: Rgb
    is_background: bool = False


@dataclass(frozen=True)
class Sample:
    """One image of a dataset; `mask_path` is None where it is not labelled.

    rule: how the dataset's pictures are shown; None: each by its own range.
    """

    key: str
    image_path: Path
    mask_path: Path | None
    rule: PixelRule | None = None

    def content(self) -> bytes:
        """The image file's bytes."""
        return self.image_path.read_bytes()

    def image(self) -> np.ndarray:
        """(H, W, 3) uint8, RGB."""
        return decode_image(self.content(), rule=self.rule)

    def mask(self) -> np.ndarray:
        """(H, W) uint8 class indices, VOID where not annotated; `DatasetError` without a mask."""
        if self.mask_path is None:
            raise DatasetError(f"{self.image_path} has no mask")
        return _read_mask(self.mask_path)


@dataclass(frozen=True)
class Dataset:
    """Images by key, the classes that their masks' values stand for, and the splits."""

    name: str
    root: Path
    classes: tuple[DatasetClass, ...]
    samples: Mapping[str, Sample]
    splits: Mapping[str, tuple[str, ...]]

    @classmethod
    def open(cls, root: Path) -> Self:
        """Read and check a dataset in our layout.

        Raises:
            DatasetError: if a file is missing or damaged, if sizes differ, if a mask holds an
                index without a class, or if an image stands in two splits.
        """
        if not root.is_dir():
            raise DatasetError(f"{root} is no folder; give the folder that holds classes.json")
        classes = read_classes(root / "classes.json")
        splits = _read_splits(root / "splits.json")
        images, masks = _images_by_key(root / "images"), root / "masks"
        samples = {}
        for key in (key for keys in splits.values() for key in keys):
            if key not in images:
                raise DatasetError(
                    f"splits.json of {root} names {key!r}, but there is no images/{key} with one "
                    f"of the suffixes {', '.join(IMAGE_SUFFIXES)}"
                )
            mask_path = masks / f"{key}.png"
            if not mask_path.is_file():
                raise DatasetError(f"image {key!r} of {root} has no mask, expected {mask_path}")
            samples[key] = Sample(key, images[key], mask_path)
        for sample in samples.values():
            _check(sample, len(classes))
        return cls(root.name, root, classes, _by_one_rule(samples), splits)

    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of a split, in its order; `DatasetError` if there is no such split."""
        if name not in self.splits:
            known = ", ".join(self.splits)
            raise DatasetError(f"dataset {self.name} has no split {name!r}; it has {known}")
        return tuple(self.samples[key] for key in self.splits[name])

    def files_digest(self, splits: Sequence[str]) -> str:
        """`digest_of` the samples of some splits, each counted once."""
        keys = (key for name in dict.fromkeys(splits) for key in self.splits.get(name, ()))
        return digest_of(self.samples[key] for key in keys)

    def split_sizes(self, splits: Sequence[str]) -> dict[str, int]:
        """How many images each split has; beside `files_digest`, which split an image is of."""
        return {name: len(self.splits.get(name, ())) for name in splits}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of the masks' values."""
        return tuple(label.name for label in self.classes)

    @property
    def background(self) -> int | None:
        """The masks' value that annotators leave unpainted; None where they paint everything."""
        marks = (index for index, label in enumerate(self.classes) if label.is_background)
        return next(marks, None)


def evenly_spaced(items: Sequence[_Item], count: int | None) -> list[_Item]:
    """So many of them, from the first on, or all where there are no more; None: all."""
    count = min(len(items), len(items) if count is None else count)
    return [items[index * len(items) // count] for index in range(count)]


def digest_of(samples: Iterable[Sample]) -> str:
    """SHA-256 of images, how they are shown, and masks: another where a pixel may be another."""
    paths: list[Path] = []
    rules: dict[str, None] = {}
    for sample in samples:
        paths += [path for path in (sample.image_path, sample.mask_path) if path]
        if sample.rule is not None:
            rules[f"{sample.rule.bands} {sorted(sample.rule.ranges.items())}"] = None
    return hashlib.sha256("".join([*map(weights.digest, paths), *rules]).encode()).hexdigest()


def plain_folder(folder: Path, class_names: Sequence[str] = ()) -> Dataset:
    """A folder of pictures as a dataset, with or without masks.

    A picture's mask is `masks/<name>.png` or `<name>_mask.png`. Every fifth picture with a mask
    goes to `d_r`, every fifth to `test`, all others to `d_v`.

    Args:
        folder: the pictures' folder; folders in it are not searched.
        class_names: names by mask value; without them those of `classes.json` in the folder, or
            class-0, class-1 ...

    Raises:
        DatasetError: if there is no picture, or a mask does not fit its picture.
    """
    pictures = _pictures(folder)
    samples = {path.stem: Sample(path.stem, path, _mask_beside(path)) for path in pictures}
    labelled = [sample for sample in samples.values() if sample.mask_path]
    classes_path = folder / "classes.json"
    if class_names:
        classes = tuple(
            DatasetClass(name, distinct_color(index)) for index, name in enumerate(class_names)
        )
    elif classes_path.is_file():
        classes = read_classes(classes_path)
    else:
        highest = max((_highest_index(sample) for sample in labelled), default=1)
        classes = tuple(
            DatasetClass(f"class-{index}", distinct_color(index)) for index in range(highest + 1)
        )
    for sample in samples.values():
        _check(sample, len(classes))
    splits = _own_splits(samples)
    return Dataset(folder.resolve().name, folder, classes, _by_one_rule(samples), splits)


def write_dataset(
    root: Path,
    classes: Sequence[DatasetClass],
    images: Iterable[tuple[str, str, np.ndarray, np.ndarray]],
) -> None:
    """Write (split, key, image, mask) in our layout; the folder appears when it is complete.

    Raises:
        FileExistsError: if `root` exists already.
    """
    if root.exists():
        raise FileExistsError(f"{root} exists already; delete it or choose another folder")
    colors = [label.color for label in classes]
    splits: dict[str, list[str]] = {name: [] for name in SPLITS}
    with writing_folder(root) as partial:
        for split, key, image, mask in images:
            write_bytes(partial / "images" / f"{key}.png", encode_png(image))
            write_bytes(partial / "masks" / f"{key}.png", palette_png(mask, colors))
            splits[split].append(key)
        write_json(partial / "classes.json", classes_json(root.name, classes))
        write_json(partial / "splits.json", splits)


def classes_json(name: str, classes: Sequence[DatasetClass]) -> dict[str, Any]:
    """What `classes.json` holds."""
    marks = (index for index, label in enumerate(classes) if label.is_background)
    background = next(marks, None)
    return {
        "name": name,
        "void": VOID,
        **({} if background is None else {"background": background}),
        "classes": [
            {"id": index, "name": label.name, "color": list(label.color)}
            for index, label in enumerate(classes)
        ],
    }


def read_classes(path: Path) -> tuple[DatasetClass, ...]:
    """The classes of a `classes.json`, in the order of their ids; `DatasetError` if malformed."""
    content = _read_json(path)
    try:
        void, entries = content.get("void", VOID), content["classes"]
        background = content.get("background")
        classes = tuple(
            DatasetClass(str(entry["name"]), _color(entry), index == background)
            for index, entry in enumerate(entries)
        )
        ids = [int(entry.get("id", index)) for index, entry in enumerate(entries)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f'{path} is malformed ({error!r}); expected {{"classes": [{{"id": 0, "name": "road", '
            '"color": [128, 64, 128]}, ...]}'
        ) from error
    names = [label.name for label in classes]
    if ids != list(range(len(classes))):
        raise DatasetError(f"{path} has class ids {ids}, expected 0, 1, 2 ... in this order")
    if not 1 <= len(classes) < VOID:
        raise DatasetError(f"{path} has {len(classes)} classes, expected 1 to {VOID - 1}")
    if len(set(names)) < len(names):
        raise DatasetError(f"{path} has the same class name twice: {sorted(names)}")
    is_class = background in range(len(classes)) and not isinstance(background, bool)
    if background is not None and not is_class:
        raise DatasetError(
            f"{path} says that background is {background!r}, expected the id of a class, 0 to "
            f"{len(classes) - 1}; leave it out where annotators paint everything"
        )
    if void != VOID:
        raise DatasetError(f"{path} says that void is {void}, expected {VOID}; convert the masks")
    return classes


def _color(entry: Mapping[str, Any]) -> Rgb:
    color = entry["color"]
    if isinstance(color, str):
        return rgb(color)
    red, green, blue = (int(value) for value in color)
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f"colour {color} is not within 0 to 255")
    return red, green, blue


def _read_splits(path: Path) -> dict[str, tuple[str, ...]]:
    content = _read_json(path)
    if not isinstance(content, dict) or not all(
        isinstance(keys, list) and all(isinstance(key, str) for key in keys)
        for keys in content.values()
    ):
        raise DatasetError(f"{path} is malformed; expected lists of image keys by split name")
    unknown = sorted({*content} - {*SPLITS, *USUAL_NAMES})
    if unknown:
        expected = ", ".join((*USUAL_NAMES, *SPLITS))
        raise DatasetError(f"{path} has unknown splits {unknown}; expected some of {expected}")
    seen: dict[str, str] = {}
    for split, keys in content.items():
        for key in keys:
            if Path(key).is_absolute() or ".." in Path(key).parts:
                raise DatasetError(f"{path}: {key!r} leaves the dataset's folder")
            if key in seen:
                raise DatasetError(
                    f"{path}: {key!r} stands in {seen[key]} and in {split}; an image may be in one "
                    "split, once"
                )
            seen[key] = split
    if not seen:
        raise DatasetError(f"{path} names no image")
    splits: dict[str, tuple[str, ...]] = dict.fromkeys(SPLITS, ())
    for name, keys in content.items():
        splits[USUAL_NAMES.get(str(name), str(name))] += tuple(keys)
    return splits


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist; a dataset needs it") from error
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON: {error}") from error


def _images_by_key(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
            continue
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise DatasetError(f"{found[key]} and {path} have the same name; rename one")
        found[key] = path
    return found


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder; give a folder of pictures")
    pictures = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        and not (path.stem.endswith("_mask") and path.suffix == ".png")
    ]
    if not pictures:
        raise DatasetError(
            f"{folder} holds no picture; expected files with one of the suffixes "
            f"{', '.join(IMAGE_SUFFIXES)} directly in it"
        )
    stems = [path.stem for path in pictures]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise DatasetError(f"{folder} has several pictures named {twice[0]!r}; rename them")
    return pictures


def _mask_beside(picture: Path) -> Path | None:
    for path in (
        picture.parent / "masks" / f"{picture.stem}.png",
        picture.with_name(f"{picture.stem}_mask.png"),
    ):
        if path.is_file():
            return path
    return None


def _own_splits(samples: Mapping[str, Sample]) -> dict[str, tuple[str, ...]]:
    splits: dict[str, list[str]] = {name: [] for name in SPLITS}
    num_labelled = 0
    for key, sample in samples.items():
        turn = num_labelled % 5 if sample.mask_path else 0
        num_labelled += sample.mask_path is not None
        splits["d_r" if turn == 3 else "test" if turn == 4 else "d_v"].append(key)
    return {name: tuple(keys) for name, keys in splits.items()}


def _by_one_rule(samples: Mapping[str, Sample]) -> Mapping[str, Sample]:
    """The samples; where pictures have more than 8 bits, all are shown by one range."""
    chosen = [it for it in samples.values() if it.image_path.suffix.lower() not in _EIGHT_BITS]
    step = max(1, len(chosen) // SAMPLE)
    found: dict[Kind, list[np.ndarray]] = {}
    for sample in chosen[::step][:SAMPLE]:
        with suppress(ImageError):  # whoever needs the picture says what is wrong with it
            values = deep_values(sample.content())
            if values is not None:
                found.setdefault(values[0], []).append(values[1])
    if not found:
        return samples
    ranges = {**WHOLE_RANGES, **{kind: range_of(values) for kind, values in found.items()}}
    rule = PixelRule(ranges=ranges)
    return {key: replace(sample, rule=rule) for key, sample in samples.items()}


def _check(sample: Sample, num_classes: int) -> None:
    size = _image_size(sample.image_path)
    if sample.mask_path is None:
        return
    mask = _read_mask(sample.mask_path)
    if mask.shape != size:
        raise DatasetError(
            f"{sample.mask_path} is {mask.shape[0]} x {mask.shape[1]} pixels (height x width), "
            f"its image {size[0]} x {size[1]}"
        )
    highest = _highest(mask)
    if highest >= num_classes:
        raise DatasetError(
            f"{sample.mask_path} holds the class index {highest}, but there are only "
            f"{num_classes} classes (0 to {num_classes - 1}, and {VOID} for void); complete "
            "classes.json or correct the mask"
        )


def _image_size(path: Path) -> tuple[int, int]:
    """(height, width) as the image is shown, from the header alone."""
    try:
        return file_facts(path.read_bytes()).size
    except (OSError, ImageError) as error:
        raise DatasetError(f"{path} is no readable image: {error}") from error


def _read_mask(path: Path) -> np.ndarray:
    try:
        return mask_from_png(path.read_bytes())
    except ImageError as error:
        raise DatasetError(f"{path}: {error}") from error


def _highest_index(sample: Sample) -> int:
    return max(_highest(sample.mask()), 1)


def _highest(mask: np.ndarray) -> int:
    labelled = mask[mask != VOID]
    return int(labelled.max()) if labelled.size else 0
