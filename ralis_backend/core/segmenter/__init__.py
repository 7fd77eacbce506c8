"""Image -> class probabilities."""

from ralis_backend.core.segmenter.forward import MAPS, ForwardPass
from ralis_backend.core.segmenter.smp import NUM_DROPOUT_PASSES, Segmenter, SegmenterSpec

__all__ = ["MAPS", "NUM_DROPOUT_PASSES", "ForwardPass", "Segmenter", "SegmenterSpec"]
