from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ralis_backend.offline.datasets import Dataset, DatasetClass, write_dataset

SIZE = (64, 96)
REGION_SIZE = (32, 32)  # six regions an image
COLORS = np.array([(40, 40, 160), (160, 40, 40), (40, 160, 40)])
SPLIT_SIZES = {"d_s": 2, "d_t": 5, "d_v": 5, "d_r": 2, "test": 3}


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image of ground, a band and a box in their colours, and its mask with a little void."""
    mask = np.zeros(SIZE, np.uint8)
    row, col = rng.integers(8, 40), rng.integers(0, 60)
    mask[row : row + 16] = 1
    mask[row : row + 20, col : col + 24] = 2
    noise = rng.integers(-30, 30, (*SIZE, 3))
    image = np.clip(COLORS[mask] + noise, 0, 255).astype(np.uint8)
    mask[:2, :2] = 255
    return image, mask


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root: Path = tmp_path_factory.mktemp("datasets") / "tiny"
    rng = np.random.default_rng(0)
    names = ("ground", "band", "box")
    classes = [
        DatasetClass(name, tuple(color)) for name, color in zip(names, COLORS.tolist(), strict=True)
    ]
    entries = [
        (split, f"all/{split}-{number}", *draw(rng))
        for split, count in SPLIT_SIZES.items()
        for number in range(count)
    ]
    write_dataset(root, classes, entries)
    return Dataset.open(root)
