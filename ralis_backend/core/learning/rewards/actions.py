"""Logits -> action maps: what a segmenter might have said, drawn from what it thinks.

The segmenter is a policy, and a class is an action [P]. PSR draws at several scales, so that there
are few actions to tell apart [P]; that a cell's logits are the mean of its pixels' is ours [D].
"""

from __future__ import annotations

import torch
from torch.nn import functional


def cell_logits(logits: torch.Tensor, stride: int) -> torch.Tensor:
    """(B, C, H, W) -> (B, C, rows, cols): the mean logits of cells of stride x stride pixels.

    Where the image is no multiple of the stride, the last row and column are of smaller cells.
    """
    if stride == 1:
        return logits
    return functional.avg_pool2d(logits, stride, ceil_mode=True, count_include_pad=False)


def draw_actions(
    log_policy: torch.Tensor, num_maps: int, generator: torch.Generator, drawn_share: float = 1.0
) -> torch.Tensor:
    """(B, C, rows, cols) log-probabilities -> (G, B, rows, cols) int64 classes, drawn from them.

    Args:
        log_policy: each cell's distribution over classes.
        num_maps: G.
        generator: on the CPU, so that the draws are the same on every device.
        drawn_share: share of a map's cells that are drawn, the others have their most probable
            class [D].

    Raises:
        FloatingPointError: if a probability is not finite.
    """
    if not bool(torch.isfinite(log_policy).all()):
        raise FloatingPointError(
            "the segmenter's probabilities are not finite, so that no action can be drawn; lower "
            "learning_rate or start from an earlier version"
        )
    batch, num_classes, rows, cols = log_policy.shape
    size, device = (batch, rows, cols, num_maps), log_policy.device
    bounds = log_policy.exp().movedim(1, -1).cumsum(dim=-1)  # (B, rows, cols, C)
    chances = torch.rand(size, generator=generator).to(device) * bounds[..., -1:]
    drawn = torch.searchsorted(bounds.contiguous(), chances, right=True)
    maps = drawn.clamp(max=num_classes - 1).movedim(-1, 0)  # (G, B, rows, cols)
    if drawn_share == 1:
        return maps
    chances = torch.rand(maps.shape, generator=generator).to(device)
    return torch.where(chances < drawn_share, maps, log_policy.argmax(dim=1))


def on_pixels(actions: torch.Tensor, stride: int, size: tuple[int, int]) -> torch.Tensor:
    """(..., rows, cols) -> (..., H, W): every pixel has its cell's value.

    Args:
        actions: of the cells.
        stride: of the cells, in pixels.
        size: (H, W).
    """
    tall = actions.repeat_interleave(stride, dim=-2)
    return tall.repeat_interleave(stride, dim=-1)[..., : size[0], : size[1]]


def log_probabilities(log_policy: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """(B, C, rows, cols), (G, B, rows, cols) -> (G, B, rows, cols): of what was drawn."""
    each = log_policy.expand(len(actions), *log_policy.shape)
    return each.gather(2, actions[:, :, None]).squeeze(2)
