"""A part of a dataset and the encoder's weights, small enough to carry to a machine with a GPU.

Of the test images those are kept that `ralis benchmark --test-images` measures on, of the other
splits those that are named; the hub's cache is written with files instead of links, which not every
copy keeps.

    python -m benchmarks.gpu.data --dataset ../shared/data/camvid --out .gpu-data
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from ralis_backend.core.files import write_json
from ralis_backend.offline.datasets import Dataset, evenly_spaced


def main() -> None:
    """Copy, and say how much it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(".gpu-data"))
    parser.add_argument("--splits", default="d_s,d_v")
    parser.add_argument("--test-images", type=int, default=58)
    parser.add_argument("--hub", type=Path, default=os.environ.get("HF_HUB_CACHE"))
    options = parser.parse_args()
    splits = tuple(options.splits.split(","))
    copy_dataset(options.dataset, options.out / options.dataset.name, splits, options.test_images)
    if options.hub is not None:
        copy_hub(options.hub, options.out / "hf-cache")
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(f"{options.out}: {size / 2**20:.0f} MiB")


def copy_dataset(source: Path, target: Path, splits: tuple[str, ...], num_test: int) -> None:
    """The images and masks of some splits, and the `num_test` test images that a benchmark chooses.

    Raises:
        ValueError: if the dataset has no such split.
    """
    dataset = Dataset.open(source)
    kept = {name: list(dataset.splits[name]) for name in splits if name in dataset.splits}
    if missing := sorted(set(splits) - set(kept)):
        raise ValueError(
            f"{source} has no {', '.join(missing)}; it has {', '.join(dataset.splits)}"
        )
    kept["test"] = evenly_spaced(dataset.splits["test"], num_test)
    shutil.rmtree(target, ignore_errors=True)
    for key in {key for keys in kept.values() for key in keys}:
        sample = dataset.samples[key]
        for path in (sample.image_path, sample.mask_path):
            if path is None:
                continue
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    shutil.copyfile(source / "classes.json", target / "classes.json")
    write_json(target / "splits.json", {name: kept.get(name, []) for name in dataset.splits})


def copy_hub(source: Path, target: Path) -> None:
    """A hub's cache with files in the place of links, also of links that became files of text."""
    shutil.rmtree(target, ignore_errors=True)
    for path in source.glob("models--*/snapshots/*/*"):
        real = path
        if path.stat().st_size < 200 and (text := path.read_text()).startswith("../"):
            real = path.parent / text.strip()
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(real, copy)
    for path in source.glob("models--*/refs/*"):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


if __name__ == "__main__":
    main()
