"""A moving average of a segmenter's weights: steadier than the weights of any one step."""

from __future__ import annotations

import torch

from ralis_backend.core.segmenter import Segmenter


class MovingAverage:
    """Follows a segmenter while it is trained.

    Buffers, such as batch statistics, are averaged like weights; whole numbers are copied. The
    first steps count equally: after step t the decay is min(1 - 1 / (t + 1), decay). Source: "Mean
    teachers are better role models", arXiv:1703.01780.

    Args:
        segmenter: where the average begins.
        decay: share of the average that a step leaves as it is, in [0, 1).

    Attributes:
        segmenter: the average, in evaluation mode; one object, whose weights move.

    Raises:
        ValueError: if the decay is out of its range.
    """

    def __init__(self, segmenter: Segmenter, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of an average is {decay}, expected at least 0, below 1")
        self.segmenter = segmenter.copy()
        self._decay = decay
        self._num_steps = 0
        self._averaged = self.segmenter.state()

    def follow(self, segmenter: Segmenter) -> None:
        """Move towards the weights as they are after a step."""
        self._num_steps += 1
        decay = min(1 - 1 / (self._num_steps + 1), self._decay)
        averaged, newest = [], []
        with torch.no_grad():
            for name, tensor in segmenter.state().items():
                if tensor.is_floating_point():
                    averaged.append(self._averaged[name])
                    newest.append(tensor)
                else:
                    self._averaged[name].copy_(tensor)
            torch._foreach_lerp_(averaged, newest, 1 - decay)
        self.segmenter.is_pretrained = segmenter.is_pretrained
