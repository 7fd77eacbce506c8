"""Image -> class probabilities."""

from ralis_backend.core.segmenter.dropout import NUM_DEEP_PASSES, NUM_DROPOUT_PASSES
from ralis_backend.core.segmenter.forward import MAPS, ForwardPass
from ralis_backend.core.segmenter.protocol import DEFAULT_SPEC, Segmenter, SegmenterSpec
from ralis_backend.core.segmenter.registry import SEGMENTERS, build, load

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
