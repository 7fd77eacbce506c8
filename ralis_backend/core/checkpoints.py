"""A long run's state <-> one file, from which it goes on to the bit.

A run is known by its facts: everything that its result depends on. Only a run with the same facts
may go on from a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ralis_backend.core import weights


class OtherRun(ValueError):
    """A checkpoint belongs to a run with other facts; the message says which and what to do."""


def save(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Write a run's state, whole or not at all.

    Args:
        path: of the file.
        tensors: what the run goes on from.
        state: the rest of it, as JSON; `facts` is no key of it.
        facts: what the run's result depends on, as JSON.

    Raises:
        WeightsError: if a tensor is not finite, or state or facts are not JSON.
    """
    weights.save(path, tensors, {**state, "facts": facts})


def load(
    path: Path, facts: Mapping[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """The tensors and the state that `save` wrote; None where no file is.

    Raises:
        OtherRun: if the file was written by a run with other facts.
        WeightsError: if it is damaged.
    """
    if not path.is_file():
        return None
    tensors, state = weights.load(path)
    found, wanted = state.pop("facts", {}), json.loads(json.dumps(facts))
    if found != wanted:
        names = ", ".join(_differences(found, wanted))
        raise OtherRun(
            f"{path} belongs to a run with other settings or data (it differs in {names}); delete "
            "it to begin anew, or write the results elsewhere"
        )
    return tensors, state


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """The names of what differs, those within others after a dot."""
    for name in sorted({*found, *wanted}):
        one, other = found.get(name), wanted.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from (f"{name}.{inner}" for inner in _differences(one, other))
        elif one != other:
            yield name
