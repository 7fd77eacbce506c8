"""What a strategy is told of a region: plain statistics, and what the RALIS policy reads."""

from ralis_backend.core.features.describe import (
    GRID_SIDE,
    boundary_map,
    class_counts,
    describe,
    describe_parts,
    entropy_grid,
    entropy_map,
    maps_for,
    margin_map,
    predicted_classes,
    predicted_mask,
    symmetric_divergence,
)
from ralis_backend.core.features.table import BLOCK, FEATURES, NotDescribed, RegionFeatures, concat

__all__ = [
    "BLOCK",
    "FEATURES",
    "GRID_SIDE",
    "NotDescribed",
    "RegionFeatures",
    "boundary_map",
    "class_counts",
    "concat",
    "describe",
    "describe_parts",
    "entropy_grid",
    "entropy_map",
    "maps_for",
    "margin_map",
    "predicted_classes",
    "predicted_mask",
    "symmetric_divergence",
]
