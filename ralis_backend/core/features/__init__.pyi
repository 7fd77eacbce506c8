from .description import (
    boundary_map,
    class_counts,
    describe,
    describe_parts,
    entropy_grid,
    entropy_map,
    margin_map,
    predicted_classes,
    predicted_mask,
    symmetric_divergence,
)
from .table import BLOCK, FEATURES, GRID_SIDE, NotDescribed, RegionFeatures, concat, maps_for

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
