"""How much passes with dropout disagree: BALD, of the last layer or of the whole decoder.

Source: "Bayesian Active Learning for Classification and Preference Learning", arXiv:1112.5745.
The encoder runs once, however many passes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

NUM_DROPOUT_PASSES = 10
NUM_DEEP_PASSES = 20
DROPOUT = 0.2
"""Share of the decoder's channels that a pass leaves out: what the FPN is trained with."""
INNER_DROPOUT = 0.1
"""The same behind each activation inside the decoder, where it is not trained with any."""

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Hardswish)


def bald_of(head: nn.Conv2d, decoded: torch.Tensor) -> torch.Tensor:
    """(1, D, h, w) -> (1, h, w) mutual information of prediction and dropout mask, in nats.

    Dropout in the last layer alone: all passes are one product. Each leaves out the same channels
    in every image, so that regions compare.

    Args:
        head: gives the logits of C classes, with stride 1.
        decoded: what the head sees of one image.
    """
    generator = torch.Generator().manual_seed(0)
    kept = _kept((NUM_DROPOUT_PASSES, decoded.shape[1]), DROPOUT, generator, decoded)
    masked = head.weight * kept[:, None, :, None, None]  # (M, C, D, k, k)
    bias = None if head.bias is None else head.bias.repeat(NUM_DROPOUT_PASSES)
    logits = nn.functional.conv2d(decoded, masked.flatten(0, 1), bias, padding=head.padding)
    passes = _Disagreement()
    for each in logits[0].reshape(NUM_DROPOUT_PASSES, -1, *logits.shape[2:]):
        passes.add(each)
    return passes.bald()


def deep_bald_of(
    decode: Callable[[], torch.Tensor],
    decoder: nn.Module,
    head: Callable[[torch.Tensor], torch.Tensor],
    num_passes: int = NUM_DEEP_PASSES,
    seed: int = 0,
) -> torch.Tensor:
    """(1, h, w): the same with dropout behind every activation of the decoder and before the head.

    Each pass decodes anew and leaves out the same channels in every image.

    Args:
        decode: runs the decoder on what the encoder saw of one image; (1, D, h, w).
        decoder: whose activations they are.
        head: (1, D, h, w) -> (1, C, h, w) logits.
        num_passes: M.
        seed: of the masks.
    """
    generator = torch.Generator().manual_seed(seed)
    passes = _Disagreement()
    with _dropping(decoder, generator):
        for _ in range(num_passes):
            decoded = decode()
            kept = _kept((decoded.shape[1],), DROPOUT, generator, decoded)
            passes.add(head(decoded * kept[:, None, None])[0])
    return passes.bald()


class _Disagreement:
    """Mutual information of predictions and masks, pass by pass: each fits the cache."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, logits: torch.Tensor) -> None:
        """(C, h, w) logits of another pass."""
        log_p = logits.float().log_softmax(dim=0)
        p = log_p.exp()
        if not self._count:
            self._total, self._entropy = torch.zeros_like(p), torch.zeros_like(p[0])
        self._total += p
        self._entropy -= (p * log_p).sum(dim=0)
        self._count += 1

    def bald(self) -> torch.Tensor:
        """(1, h, w) nats."""
        of_mean = torch.special.entr(self._total / self._count).sum(dim=0)
        bald: torch.Tensor = (of_mean - self._entropy / self._count).clamp(min=0)
        return bald[None]


@contextmanager
def _dropping(decoder: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Within, each activation of the decoder leaves out channels, others in each call."""

    def drop(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        kept = _kept((output.shape[1],), INNER_DROPOUT, generator, output)
        return output * kept.reshape(-1, *[1] * (output.ndim - 2))

    hooks = [
        each.register_forward_hook(drop)
        for each in decoder.modules()
        if isinstance(each, _ACTIVATIONS)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _kept(
    size: tuple[int, ...], dropout: float, generator: torch.Generator, like: torch.Tensor
) -> torch.Tensor:
    """Factors of channels: 0 where one is left out, else what keeps the mean."""
    is_kept = torch.rand(size, generator=generator) >= dropout
    return (is_kept.float() / (1 - dropout)).to(like)
