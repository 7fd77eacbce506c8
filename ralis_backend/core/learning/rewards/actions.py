"""Logits -> action maps: what a segmenter might have said, drawn from what it thinks.

The segmenter is a policy, and a class is an action [P]. PSR draws at several scales, so that there
are few actions to tell apart [P]; how a cell is one action is ours [D], in two ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch.nn import functional

_DECODED_STRIDE = 4


def cell_logits(logits: torch.Tensor, stride: int) -> torch.Tensor:
    """(B, C, H, W) -> (B, C, rows, cols): the mean logits of cells of stride x stride pixels.

    Where the image is no multiple of the stride, the last row and column are of smaller cells.
    """
    if stride == 1:
        return logits
    return functional.avg_pool2d(logits, stride, ceil_mode=True, count_include_pad=False)


def draw_actions(
    log_policy: torch.Tensor, num_maps: int, generator: torch.Generator
) -> torch.Tensor:
    """(B, C, rows, cols) log-probabilities -> (G, B, rows, cols) int64 classes, drawn from them.

    Args:
        log_policy: each cell's distribution over classes.
        num_maps: G.
        generator: on the CPU, so that the draws are the same on every device.
    """
    batch, num_classes, rows, cols = log_policy.shape
    bounds = log_policy.exp().movedim(1, -1).cumsum(dim=-1)  # (B, rows, cols, C)
    chances = torch.rand((batch, rows, cols, num_maps), generator=generator)
    wanted = chances.to(log_policy.device) * bounds[..., -1:]
    drawn = torch.searchsorted(bounds.contiguous(), wanted, right=True)
    return drawn.clamp(max=num_classes - 1).movedim(-1, 0)


def draw_with_shared_noise(
    log_policy: torch.Tensor, num_maps: int, stride: int, generator: torch.Generator
) -> torch.Tensor:
    """(B, C, rows, cols) log-probabilities -> (G, B, rows, cols) int64 classes, in patches.

    Every place's class is drawn from its own distribution: the largest of log-probability and
    Gumbel noise. Places of a patch share the noise, so that maps differ in patches and keep their
    outlines. Patches lie elsewhere in each map.

    Args:
        log_policy: each place's distribution over classes.
        num_maps: G.
        stride: side of a patch, in places.
        generator: on the CPU.
    """
    batch, num_classes, height, width = log_policy.shape
    cells = (-(-height // stride) + 1, -(-width // stride) + 1)
    maps = []
    for _ in range(num_maps):
        chances = torch.rand((batch, num_classes, *cells), generator=generator)
        noise = -(-chances.clamp(min=1e-12).log()).log()
        top, left = torch.randint(stride, (2,), generator=generator).tolist()
        shared = on_pixels(noise.to(log_policy.device), stride, (top + height, left + width))
        maps.append((log_policy + shared[..., top:, left:]).argmax(dim=1))
    return torch.stack(maps)


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


class Sampler(Protocol):
    """A way to draw maps in cells of a stride."""

    def policy_stride(self, stride: int) -> int:
        """Side in pixels of what has a distribution of its own."""

    def draw(
        self, log_policy: torch.Tensor, num_maps: int, stride: int, generator: torch.Generator
    ) -> torch.Tensor:
        """(B, C, rows, cols) log-probabilities -> (G, B, rows, cols) int64 classes."""


class PooledCells:
    """See `Sampler`: a cell has one distribution, of its mean logits."""

    def policy_stride(self, stride: int) -> int:
        """See `Sampler.policy_stride`."""
        return stride

    def draw(
        self, log_policy: torch.Tensor, num_maps: int, stride: int, generator: torch.Generator
    ) -> torch.Tensor:
        """See `Sampler.draw`."""
        return draw_actions(log_policy, num_maps, generator)


class SharedNoise:
    """See `Sampler`: cells of 4 pixels have a distribution each, larger ones share the noise.

    4 is the stride in which networks decode: within it logits are interpolated.
    """

    def policy_stride(self, stride: int) -> int:
        """See `Sampler.policy_stride`."""
        return min(stride, _DECODED_STRIDE)

    def draw(
        self, log_policy: torch.Tensor, num_maps: int, stride: int, generator: torch.Generator
    ) -> torch.Tensor:
        """See `Sampler.draw`."""
        cell = max(1, stride // _DECODED_STRIDE)
        return draw_with_shared_noise(log_policy, num_maps, cell, generator)


SAMPLERS: Mapping[str, Sampler] = {"pooled": PooledCells(), "shared-noise": SharedNoise()}
"""By name."""
