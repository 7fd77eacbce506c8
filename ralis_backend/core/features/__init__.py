"""What a strategy is told of a region: plain statistics, and what the RALIS policy reads."""

from ralis_backend.core.features.describe import (
    GRID_SIDE,
    RegionFeatures,
    boundary_map,
    class_counts,
    concat,
    describe,
    entropy_grid,
    predicted_mask,
    symmetric_divergence,
    uncertainty_maps,
)

__all__ = [
    "GRID_SIDE",
    "RegionFeatures",
    "boundary_map",
    "class_counts",
    "concat",
    "describe",
    "entropy_grid",
    "predicted_mask",
    "symmetric_divergence",
    "uncertainty_maps",
]
