"""Errors that tell of the machine, and not of what was worked on."""

from __future__ import annotations

import torch

_TYPES = (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)
_SIGNS = ("cuda", "cudnn", "cublas", "allocate memory", "you tried to allocate")
"""Of libraries that raise what they raise for all else as well; lower case."""


def is_of_machine(error: BaseException) -> bool:
    """Whether memory, or the accelerator, failed: other work would meet it as well, as a rule."""
    if isinstance(error, _TYPES):
        return True
    return isinstance(error, RuntimeError) and any(it in str(error).lower() for it in _SIGNS)


def is_accelerator_lost(error: BaseException) -> bool:
    """Whether it, or what it came from, leaves this process without its accelerator.

    After an illegal access or a fault of the card each later call of the process fails as well.
    """
    if isinstance(error, torch.AcceleratorError):
        return True
    return error.__cause__ is not None and is_accelerator_lost(error.__cause__)
