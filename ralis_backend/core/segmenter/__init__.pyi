from .dropout import NUM_DEEP_PASSES, NUM_DROPOUT_PASSES
from .forward import ForwardPass
from .maps import MAPS
from .protocol import DEFAULT_SPEC, Segmenter, SegmenterSpec
from .registry import SEGMENTERS, build, load

__all__ = [
    "DEFAULT_SPEC",
    "MAPS",
    "NUM_DEEP_PASSES",
    "NUM_DROPOUT_PASSES",
    "SEGMENTERS",
    "ForwardPass",
    "Segmenter",
    "SegmenterSpec",
    "build",
    "load",
]
