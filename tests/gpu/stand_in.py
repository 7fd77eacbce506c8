"""A stand-in for CUDA on a machine without it: computes on the CPU, and knows what lies where.

Operations that CUDA would refuse, because their tensors lie on two devices or would have to be
copied first, are refused here with the same kind of error. It says nothing of kernels or precision.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

DEVICE = torch.device("cuda", 0)
_COPIES = ("copy_", "__set__", "_has_compatible_shallow_copy_type")  # may cross devices
_INDEXES = ("__getitem__", "__setitem__")  # CUDA tensors take indices that lie on the CPU
_TO_NUMPY = ("numpy", "__array__")
_NAMES = ("device", "_parse_to")  # make no tensor
_MOVES = ("to", "cpu", "cuda")


class StandInForCuda(TorchFunctionMode):
    """While it is entered, tensors can be made on or moved to `cuda`.

    Attributes:
        seeds: index of a device -> the last seed of its generator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seeds: dict[int, int] = {}
        self._current = 0
        # Those that lie on the device; a weak reference keeps an address from being used again.
        self._storages: dict[int, StorageWeakRef] = {}
        self._patches = ExitStack()

    def __enter__(self) -> StandInForCuda:
        autocast, fork_rng = torch.autocast, torch.random.fork_rng
        for name, stand_in in {
            "torch.autocast": lambda _, *rest, **named: autocast("cpu", *rest, **named),
            "torch.random.fork_rng": lambda devices: fork_rng(devices=[]),
            "torch.cuda.device": self._on,
            "torch.cuda.manual_seed": lambda seed: self.seeds.update({self._current: seed}),
        }.items():
            self._patches.enter_context(mock.patch(name, stand_in))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if func == torch.Tensor.device.__get__:
            return DEVICE if self.holds(args[0]) else func(*args)
        if name in _NAMES:
            return func(*args, **kwargs)
        wanted = _named_devices(name, args, kwargs)
        if name in _MOVES:
            wanted += [self.device_of(it) for it in args[1:] if isinstance(it, torch.Tensor)]
        held, others = self._sorted(_tensors((args, kwargs)))
        self._check(name, args, kwargs, wanted, bool(held and others))
        if wanted:
            args, kwargs = [_on_cpu(it) for it in args], {k: _on_cpu(v) for k, v in kwargs.items()}
        result = func(*args, **kwargs)
        is_held = wanted[-1].type == "cuda" if wanted else bool(held)
        if name in _MOVES and result is args[0] and is_held != self.holds(result):
            result = result.clone()
        if name not in (*_COPIES, "__setitem__"):
            self._place(result, is_held)
        if name == "__set__":
            self._place(args[0], self.holds(args[1]) if torch.is_tensor(args[1]) else is_held)
        return result

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor lies on the device."""
        return tensor.untyped_storage()._cdata in self._storages

    def device_of(self, tensor: torch.Tensor) -> torch.device:
        """Where a tensor lies."""
        return DEVICE if self.holds(tensor) else torch.device("cpu")

    @contextmanager
    def _on(self, device: torch.device) -> Iterator[None]:
        before, self._current = self._current, device.index or 0
        try:
            yield
        finally:
            self._current = before

    def _sorted(self, tensors: Iterable[torch.Tensor]) -> tuple[list[Any], list[Any]]:
        """Those on the device, and those on the CPU that cannot cross to it as a number."""
        held, others = [], []
        for each in tensors:
            if self.holds(each):
                held.append(each)
            elif each.ndim and each.numel():
                others.append(each)
        return held, others

    def _place(self, values: Any, is_held: bool) -> None:
        for each in _tensors(values):
            storage = each.untyped_storage()
            if is_held:
                self._storages[storage._cdata] = StorageWeakRef(storage)
            else:
                self._storages.pop(storage._cdata, None)

    def _check(
        self, name: str, args: Any, kwargs: Any, wanted: list[torch.device], is_mixed: bool
    ) -> None:
        if name in _TO_NUMPY and self.holds(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy; copy it with cpu()")
        if wanted and wanted[-1].type == "cuda" and kwargs.get("generator") is not None:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if not is_mixed or name in (*_COPIES, *_MOVES):
            return
        if name in _INDEXES and self.holds(args[0]):
            values = [] if name == "__getitem__" else _advanced_values(args)
            is_mixed = bool(self._sorted(values)[1])
        if is_mixed:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, list | tuple | dict):
        for each in values.values() if isinstance(values, dict) else values:
            yield from _tensors(each)


def _advanced_values(args: Any) -> list[torch.Tensor]:
    """What is assigned at indices that are tensors, lists or arrays; slices take a copy."""
    _, index, value = args
    parts = index if isinstance(index, tuple) else (index,)
    is_plain = all(isinstance(it, int | slice | type(None) | type(...)) for it in parts)
    return [value] if torch.is_tensor(value) and value.ndim and not is_plain else []


def _named_devices(name: str, args: Any, kwargs: Any) -> list[torch.device]:
    """The devices that a call names, as `device=`, or first in `Tensor.to`."""
    if name == "cpu":
        return [torch.device("cpu")]
    if name == "cuda":
        return [DEVICE]
    named = [*(args[1:2] if name == "to" else ()), kwargs.get("device")]
    return [torch.device(it) for it in named if isinstance(it, str | torch.device)]


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.device) or (isinstance(value, str) and value.startswith("cuda")):
        return torch.device("cpu")
    return value
