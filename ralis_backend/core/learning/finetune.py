"""Segmenter + partly labelled images -> the same segmenter, fitted.

Used by the worker and by the offline environment alike: both learn in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from types import MappingProxyType
from typing import Any

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.crops import ImageCache, LabelledImage
from ralis_backend.core.learning.loop import TrainingProgress, TrainingSummary, train
from ralis_backend.core.learning.objective import Objective
from ralis_backend.core.learning.painted import PaintedRegions
from ralis_backend.core.learning.registry import OBJECTIVES
from ralis_backend.core.segmenter import Segmenter


def finetune(
    segmenter: Segmenter,
    images: Sequence[LabelledImage],
    config: FinetuneConfig | None = None,
    *,
    seed: int,
    besides: Sequence[str] = (),
    removed_classes: Sequence[int] = (),
    on_progress: Callable[[TrainingProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainingSummary:
    """Train `segmenter` in place on the labelled regions of `images`.

    The same seed gives the same weights on a CPU.

    Args:
        segmenter: of any kind.
        images: with labels in some regions.
        config: how to train.
        seed: of everything random.
        besides: names in `OBJECTIVES` of what else it learns from.
        removed_classes: indices of those that nothing should teach it any more.
        on_progress: told after each step.
        should_stop: asked before each step; the segmenter then stays as trained so far.

    Raises:
        ValueError: if no region holds a label, a mask an unknown class, or no objective has such
            a name.
        FloatingPointError: if the loss is not finite; the segmenter is then of no use.
    """
    config = config or FinetuneConfig()
    config.check()
    num_classes = segmenter.num_classes
    cache = ImageCache(config.cache_bytes)
    painted = PaintedRegions(images, config, num_classes, seed=seed, cache=cache)
    steps = config.num_steps(len(painted))
    others = _others(
        images,
        config.within(steps),
        num_classes,
        seed=seed,
        besides=besides,
        removed_classes=removed_classes,
        cache=cache,
    )
    return train(
        segmenter,
        [painted, *others],
        config,
        steps=steps,
        steps_per_epoch=len(painted) / config.batch_size,
        seed=seed,
        on_progress=on_progress,
        should_stop=should_stop,
    )


def objectives(
    images: Sequence[LabelledImage],
    config: FinetuneConfig,
    num_classes: int,
    *,
    seed: int,
    besides: Sequence[str] = (),
    removed_classes: Sequence[int] = (),
    before: Mapping[str, Objective],
    facts: Mapping[str, Any],
) -> tuple[PaintedRegions, *tuple[Objective, ...]]:
    """The painted regions, then what else is learned from; arguments and errors of `finetune`.

    `before` is what else was learned from until now in the same training, by name, and `facts` what
    that said when the training was last kept.
    """
    cache = ImageCache(config.cache_bytes)
    painted = PaintedRegions(images, config, num_classes, seed=seed, cache=cache)
    others = _others(
        images,
        config,
        num_classes,
        seed=seed,
        besides=besides,
        removed_classes=removed_classes,
        before=before,
        facts=facts,
        cache=cache,
    )
    return painted, *others


def _others(
    images: Sequence[LabelledImage],
    config: FinetuneConfig,
    num_classes: int,
    *,
    seed: int,
    besides: Sequence[str],
    removed_classes: Sequence[int],
    cache: ImageCache,
    before: Mapping[str, Objective] = MappingProxyType({}),
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> list[Objective]:
    """What is learned from besides painted regions."""
    made = []
    for name in besides:
        make: Callable[..., Objective] = OBJECTIVES.find(name)
        known = {
            "removed_classes": removed_classes,
            "before": before.get(name),
            "facts": facts,
            "cache": cache,
        }
        asked = signature(make).parameters
        told = {key: value for key, value in known.items() if key in asked}
        made.append(make(images, config, num_classes, seed=seed, **told))
    return made
