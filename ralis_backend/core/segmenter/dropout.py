"""How much passes with dropout in the last layer disagree: BALD."""

from __future__ import annotations

import torch
from torch import nn

NUM_DROPOUT_PASSES = 10
DROPOUT = 0.2
"""Share of the decoder's channels that a pass leaves out: what the FPN is trained with."""


def bald_of(head: nn.Conv2d, decoded: torch.Tensor) -> torch.Tensor:
    """(1, D, h, w) -> (1, h, w) mutual information of prediction and dropout mask, in nats.

    Each pass leaves out the same channels in every image, so that regions compare. Source:
    "Bayesian Active Learning for Classification and Preference Learning", arXiv:1112.5745;
    dropout in the head alone, so that the encoder runs once.

    Args:
        head: gives the logits of C classes, with stride 1.
        decoded: what the head sees of one image.
    """
    generator = torch.Generator().manual_seed(0)
    is_kept = torch.rand(NUM_DROPOUT_PASSES, decoded.shape[1], generator=generator) >= DROPOUT
    kept = (is_kept.float() / (1 - DROPOUT)).to(decoded.device)
    masked = head.weight * kept[:, None, :, None, None]  # (M, C, D, k, k)
    bias = None if head.bias is None else head.bias.repeat(NUM_DROPOUT_PASSES)
    logits = nn.functional.conv2d(decoded, masked.flatten(0, 1), bias, padding=head.padding)
    passes = logits[0].float().reshape(NUM_DROPOUT_PASSES, -1, *logits.shape[2:])
    total, entropy = torch.zeros_like(passes[0]), torch.zeros_like(passes[0, 0])
    for each in passes:  # one by one: each fits the processor's cache
        log_p = each.log_softmax(dim=0)  # (C, h, w)
        p = log_p.exp()
        total += p
        entropy -= (p * log_p).sum(dim=0)
    of_mean = torch.special.entr(total / NUM_DROPOUT_PASSES).sum(dim=0)
    bald: torch.Tensor = (of_mean - entropy / NUM_DROPOUT_PASSES).clamp(min=0)
    return bald[None]
