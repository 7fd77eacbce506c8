"""Kinds of segmenters by name: what builds one, and reads a version of one."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from ralis_backend.core import weights
from ralis_backend.core.regions import VOID
from ralis_backend.core.registry import Registry
from ralis_backend.core.segmenter import encoder_weights
from ralis_backend.core.segmenter.protocol import Segmenter, SegmenterSpec
from ralis_backend.core.segmenter.smp import SmpSegmenter, UnknownArchitecture


class Kind(Protocol):
    """Builds segmenters of one kind; `ValueError` for a spec that names none of them."""

    def __call__(
        self, spec: SegmenterSpec, *, seed: int = 0, device: str | torch.device = "cpu"
    ) -> Segmenter:
        """The segmenter, with the weights that its spec names."""


DEFAULT_KIND = SmpSegmenter.kind
SEGMENTERS: Registry[Kind] = Registry("kind of segmenter", "ralis_backend.segmenters")
"""What builds a segmenter, by name; a spec's architecture may be that name."""
SEGMENTERS.register(DEFAULT_KIND, SmpSegmenter)


def kind_of(spec: SegmenterSpec) -> str:
    """The name in `SEGMENTERS` of what a spec asks for."""
    return spec.architecture if spec.architecture in SEGMENTERS else DEFAULT_KIND


def build(spec: SegmenterSpec, *, seed: int = 0, device: str | torch.device = "cpu") -> Segmenter:
    """A new segmenter; where weights of the hub cannot be had it warns and has random ones.

    Args:
        spec: the network.
        seed: of the layers that no pretrained weights exist for.
        device: as torch names it.

    Raises:
        ValueError: if there is no such network, or a file of weights does not fit it.
    """
    try:
        return SEGMENTERS[kind_of(spec)](spec, seed=seed, device=device)
    except UnknownArchitecture as error:
        others = ", ".join(sorted(set(SEGMENTERS) - {DEFAULT_KIND})) or "none is installed"
        raise ValueError(f"{error}; or a segmenter of another kind: {others}") from None


def load(path: Path, device: str | torch.device = "cpu") -> Segmenter:
    """The segmenter that `Segmenter.save` wrote; reads nothing but this file.

    Raises:
        weights.WeightsError: if the file is damaged or holds something else.
    """
    tensors, metadata = weights.load(path)
    if metadata.get("kind") != "segmenter":
        raise weights.WeightsError(
            f"{path} holds a {metadata.get('kind', 'file of unknown kind')}, not a segmenter"
        )
    kind = str(metadata.get("segmenter", DEFAULT_KIND))
    if kind not in SEGMENTERS:
        raise weights.WeightsError(
            f"{path} holds a segmenter of kind '{kind}', expected one of {', '.join(SEGMENTERS)}; "
            "install the package that it comes from"
        )
    try:
        spec = SegmenterSpec(**metadata["spec"])
        if not 1 <= spec.num_classes <= VOID:
            raise ValueError(f"num_classes is {spec.num_classes!r}, expected 1 to {VOID}")
        segmenter = SEGMENTERS[kind](spec.untrained(), seed=int(metadata["seed"]), device=device)
        segmenter.restore(tensors)
        segmenter.spec, segmenter.is_pretrained = spec, bool(metadata["is_pretrained"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise weights.WeightsError(
            f"{path} does not fit the network it names ({metadata.get('spec')}): {error}"
        ) from error
    return segmenter


def encoder_spec(spec: SegmenterSpec) -> SegmenterSpec:
    """What to build where the encoder alone is asked for.

    Architectures of the default kind share their encoders, but some dilate them.
    """
    if kind_of(spec) != DEFAULT_KIND:
        return spec
    return replace(spec, architecture="FPN")


def encoder_facts(spec: SegmenterSpec) -> dict[str, Any]:
    """What an encoder's features depend on, as JSON."""
    facts = asdict(encoder_spec(spec))
    del facts["num_classes"]
    if kind_of(spec) == DEFAULT_KIND:
        del facts["architecture"]
    return facts | weights_facts(spec)


def segmenter_facts(spec: SegmenterSpec) -> dict[str, Any]:
    """What a segmenter that is built of `spec` depends on, as JSON."""
    return asdict(spec) | weights_facts(spec)


def weights_facts(spec: SegmenterSpec) -> dict[str, Any]:
    """What is in the file of the encoder's weights, as JSON: nothing where they are no file."""
    if spec.encoder_weights is None or not encoder_weights.is_file(spec.encoder_weights):
        return {}
    return {"encoder_weights_sha256": weights.digest(Path(spec.encoder_weights))}
