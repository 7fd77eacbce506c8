import numpy as np
import pytest

from ralis_backend.offline.datasets import write_dataset
from tests.cli.demo.classes import CLASSES


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    write_dataset(
        tmp_path / "toy",
        CLASSES,
        [
            (
                split,
                f"{split}/x{index}",
                rng.integers(0, 256, (40, 56, 3)).astype(np.uint8),
                rng.integers(0, 2, (40, 56)).astype(np.uint8),
            )
            for split, count in (("d_v", 5), ("d_r", 2), ("test", 3))
            for index in range(count)
        ],
    )
    return tmp_path / "toy"
