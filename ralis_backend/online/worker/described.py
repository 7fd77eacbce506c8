"""One image of the pool after the look at it, as far as it stays in memory."""

from __future__ import annotations

from dataclasses import dataclass

from ralis_backend.online.store.tables import Image


@dataclass(frozen=True)
class DescribedRow:
    """One image after its forward pass: features are in the spool, the mask in the store.

    size: (height, width) in pixels. content: tells its pixels from others'.
    """

    image: Image
    size: tuple[int, int]
    num_regions: int
    mask_key: str | None
    content: str
