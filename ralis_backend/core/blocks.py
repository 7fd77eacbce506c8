"""Maps of an image in blocks of rows that the processor's cache holds.

Between two steps over a whole map of, say, 19 classes and 2048 x 1024 pixels, 160 MB go to memory
and come back; what is done block by block waits for memory once.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

_BLOCK_BYTES = 2**21


def row_blocks(maps: torch.Tensor) -> Iterator[torch.Tensor]:
    """(C, rows, ...) -> views of some of the rows each, in order; all of them on other devices."""
    num_rows = rows_each = max(1, maps.shape[1])  # without rows there is one block, an empty one
    if maps.device.type == "cpu":
        rows_each = max(1, _BLOCK_BYTES // max(1, maps.element_size() * maps[:, :1].numel()))
    for start in range(0, num_rows, rows_each):
        yield maps[:, start : start + rows_each]


def softmax_(logits: torch.Tensor) -> torch.Tensor:
    """(C, H, W) logits -> the same tensor, which holds probabilities over C now."""
    for block in row_blocks(logits):
        block.sub_(block.amax(dim=0)).exp_()
        block.div_(block.sum(dim=0))
    return logits
