"""Training without a fixed end: it goes on for as long as what is held out gains by it.

The learning rate stays as it is, and the moving average of the weights is what is looked at: at any
moment as good a segmenter as if the rate had just come down, whenever that moment is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from ralis_backend.core.learning.average import MovingAverage
from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.course import ContinuingConfig, Course
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.learning.evaluation import evaluate
from ralis_backend.core.learning.finetune import objectives
from ralis_backend.core.learning.loop import Training
from ralis_backend.core.learning.objective import Objective
from ralis_backend.core.segmenter import Segmenter

_UPDATE_IN_LOOKS = 3
"""An update computes about so many times what a look at the same pixels does."""


class ContinuedTraining:
    """A copy of a segmenter that goes on learning, from other labels too as they come.

    Args:
        segmenter: where it begins; left alone.
        config: as it was trained; its schedule, warm-up and number of steps play no part.
        continuing: how it goes on.
        seed: of everything random.
        updates: that were made before, if it is taken up again.
        facts: what its objectives said then, see `facts`.

    Attributes:
        candidate: the moving average; one object, whose weights move.
        updates: made so far.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        config: FinetuneConfig,
        continuing: ContinuingConfig,
        *,
        seed: int,
        updates: int = 0,
        facts: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        config.check()
        warm = replace(config.unlabelled, warm_up=0)  # it has learned something already
        config = replace(config, unlabelled=warm)
        self._segmenter, self._config = segmenter.copy(), config
        self._seed = seed + updates  # other draws than before, where it is taken up again
        self._before, self._facts = updates, facts
        self._besides: dict[str, Objective] = {}
        self._training = Training(
            self._segmenter, [], config, lambda update: continuing.learning_rate
        )
        self._average = MovingAverage(segmenter, continuing.decay)

    @property
    def candidate(self) -> Segmenter:
        """The moving average; one object, whose weights move."""
        return self._average.segmenter

    @property
    def updates(self) -> int:
        """Made so far, those before it was taken up again included."""
        return self._before + self._training.num_updates

    def count_from(self, updates: int) -> None:
        """What was the `updates`-th update is none from now on, and the next one the first."""
        self._before -= updates

    def learn_from(
        self,
        images: Sequence[LabelledImage],
        besides: Sequence[str] = (),
        removed_classes: Sequence[int] = (),
    ) -> None:
        """What is learned from now on; arguments and errors of `finetune`.

        What objectives remember that were there before, such as a teacher, outlasts the change.
        """
        made = objectives(
            images,
            self._config,
            self._segmenter.num_classes,
            seed=self._seed + self._training.num_updates,
            besides=besides,
            removed_classes=removed_classes,
            before=self._besides,
            facts=self._facts,
        )
        self._training.objectives = made
        self._besides = dict(zip(besides, made[1:], strict=True))

    def facts(self) -> dict[str, Any]:
        """What the objectives want kept with what was trained, JSON."""
        return self._training.facts()

    def advance(
        self,
        updates: int,
        should_stop: Callable[[], bool],
        on_update: Callable[[float], object] = lambda loss: None,
    ) -> bool:
        """Go on until so many updates were made in all; False if it was asked to stop before.

        Args:
            updates: counted from the first of all.
            should_stop: asked before each update.
            on_update: told the loss of each.

        Raises:
            FloatingPointError: if the loss is not finite.
        """
        with self._training.begun(self._seed + self._training.num_updates):
            while self.updates < updates:
                if should_stop():
                    return False
                loss = self._training.update()
                self._average.follow(self._segmenter)
                on_update(loss)
        return True


def next_look(
    updates: int, held_out: Sequence[LabelledImage], config: FinetuneConfig, rules: ContinuingConfig
) -> int:
    """After how many updates in all what is held out is looked at next.

    Looks come every `updates_per_look`, or further apart where they would take more than their
    share: a look computes each pixel of an image once, an update those of its crops three times.
    """
    height, width = config.crop_size
    in_updates = sum(int(np.prod(image.mask.shape)) for image in held_out) / (
        _UPDATE_IN_LOOKS * config.batch_size * height * width
    )
    every = max(rules.updates_per_look, round(in_updates * (1 / rules.look_share - 1)))
    return (updates // every + 1) * every


@dataclass(frozen=True)
class Converged:
    """The end of a training that went on for as long as it helped.

    segmenter: the best candidate; the start itself if none was better.
    course: the whole way.
    is_stopped: whether it ended before it had converged.
    facts: what the objectives want kept with it, JSON.
    """

    segmenter: Segmenter
    course: Course
    is_stopped: bool
    facts: Mapping[str, Any]


def train_until_converged(
    segmenter: Segmenter,
    images: Sequence[LabelledImage],
    held_out: Sequence[LabelledImage],
    config: FinetuneConfig,
    rules: ContinuingConfig,
    score: Callable[[np.ndarray], float],
    *,
    seed: int,
    besides: Sequence[str] = (),
    removed_classes: Sequence[int] = (),
    should_stop: Callable[[], bool] = lambda: False,
    on_look: Callable[[Course, float], object] = lambda course, score: None,
) -> Converged:
    """Go on from `segmenter`, which is left alone, until what is held out gains no more.

    The same seed gives the same weights on a CPU.

    Args:
        segmenter: that has learned something already.
        images: with labels in some regions.
        held_out: likewise; none of it is learned from.
        config: as it was trained.
        rules: how it goes on.
        score: of a (C, C) int64 confusion matrix over what is held out, higher is better.
        seed: of everything random.
        besides: names in `OBJECTIVES` of what else it learns from.
        removed_classes: as in `finetune`.
        should_stop: asked before each update.
        on_look: told where it stands after each look, and the score of that one.

    Raises:
        ValueError: as `finetune`; if the score of the start is NaN.
        FloatingPointError: if the loss is not finite.
    """
    training = ContinuedTraining(segmenter, config, rules, seed=seed)
    training.learn_from(images, besides, removed_classes)
    first = score(evaluate(segmenter, held_out))
    if np.isnan(first):
        raise ValueError(
            f"none of the {len(held_out)} images that are held out can be read and has a labelled "
            "pixel, expected at least one, to tell when to stop"
        )
    course = Course().seen(first, 0, rules)
    best = segmenter
    while not course.has_converged(rules):
        if not training.advance(next_look(training.updates, held_out, config, rules), should_stop):
            return Converged(best, course, is_stopped=True, facts=training.facts())
        found = score(evaluate(training.candidate, held_out))
        course = course.seen(found, training.updates, rules)
        if course.best_updates == training.updates:
            best = training.candidate.copy()
        on_look(course, found)
    return Converged(best, course, is_stopped=False, facts=training.facts())
