"""`ralis` with the tests' tiny segmenter: `python -m tests.e2e.tiny_ralis worker`.

Trainings take a second, so that kills meet every step.
"""

from __future__ import annotations

from ralis_backend.cli import main
from ralis_backend.core.segmenter import SEGMENTERS
from tests.tiny_segmenter import TinySegmenter

SETTINGS = {"RALIS_ARCHITECTURE": TinySegmenter.kind, "RALIS_ENCODER_WEIGHTS": "none"}

if __name__ == "__main__":
    SEGMENTERS[TinySegmenter.kind] = TinySegmenter
    main()
