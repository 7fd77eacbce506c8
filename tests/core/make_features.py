"""Features of regions for tests: what is not given is zero."""

from __future__ import annotations

import numpy as np

from ralis_backend.core.acquisition import Aimed, Strategy
from ralis_backend.core.features import RegionFeatures


def told(chooser: Strategy) -> Strategy:
    """The strategy, told that it looks for the first class if it looks for one."""
    return Aimed(chooser, 0, "first") if chooser.needs.has_target_class else chooser


def region_features(class_probabilities: np.ndarray, **given: np.ndarray) -> RegionFeatures:
    """Features of R regions with (R, C) class probabilities, and the other fields as given."""
    num_regions, num_classes = class_probabilities.shape
    values = {
        "entropy": np.zeros(num_regions, np.float32),
        "margin": np.zeros(num_regions, np.float32),
        "embeddings": np.ones((num_regions, 1), np.float32),
        "class_counts": np.zeros((num_regions, num_classes), np.float32),
        "entropy_grid": np.zeros((num_regions, 192), np.float32),
        "bald": np.zeros(num_regions, np.float32),
        "class_entropy": np.zeros((num_regions, num_classes), np.float32),
        "class_bald": np.zeros((num_regions, num_classes), np.float32),
        "boundary": np.zeros(num_regions, np.float32),
        "bald_peak": np.zeros(num_regions, np.float32),
        "class_peaks": np.zeros((num_regions, num_classes), np.float32),
        "deep_bald": np.zeros(num_regions, np.float32),
        "deep_bald_peak": np.zeros(num_regions, np.float32),
        "class_deep_bald": np.zeros((num_regions, num_classes), np.float32),
    }
    values |= {"class_probabilities": class_probabilities, **given}
    return RegionFeatures(num_regions, values)
