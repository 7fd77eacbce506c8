"""Image -> class probabilities."""

from ralis_backend.core.segmenter.smp import (
    NUM_DROPOUT_PASSES,
    ForwardPass,
    Segmenter,
    SegmenterSpec,
)

__all__ = ["NUM_DROPOUT_PASSES", "ForwardPass", "Segmenter", "SegmenterSpec"]
