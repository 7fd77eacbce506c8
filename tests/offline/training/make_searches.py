"""Searches in which it is known what the best picker looks at."""

from __future__ import annotations

import numpy as np

from ralis_backend.core.policy.misical_inputs import REGION_INPUTS
from ralis_backend.offline.training.searches import Search

TOLD_BY = REGION_INPUTS.index("class_bald_3")
"""The one input that says where the class is; the presence of the class says nothing."""
REGION_PIXELS = 100


def toy_search(seed: int, num_regions: int = 150) -> Search:
    """The class fills half of those regions whose third co-occurring class is uncertain."""
    rng = np.random.default_rng(seed)
    inputs = 0.2 * rng.standard_normal((num_regions, len(REGION_INPUTS))).astype(np.float32)
    inputs[:, TOLD_BY] *= 5
    pixels = np.where(inputs[:, TOLD_BY] > 1, REGION_PIXELS // 2, 0)
    known = rng.choice(pixels, 20)
    return Search(
        inputs,
        pixels,
        np.full(num_regions, REGION_PIXELS),
        known,
        np.full(20, REGION_PIXELS),
        0.01,
        0.1,
        inputs[:10],
    )
