from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.continuing import (
    ContinuedTraining,
    next_look,
    train_until_converged,
)
from ralis_backend.core.learning.course import ContinuingConfig
from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.learning.evaluation import evaluate
from ralis_backend.core.learning.loop import Training
from ralis_backend.core.metrics import mean_iou, mean_iou_of_present
from ralis_backend.core.regions import VOID
from ralis_backend.core.segmenter import Segmenter, SegmenterSpec, build
from tests.core.learning.test_finetune import TINY, _image

RULES = ContinuingConfig(learning_rate=30.0, decay=0.9, updates_per_look=5, patience=3)


@pytest.fixture
def segmenter(tiny_segmenters: SegmenterSpec) -> Segmenter:
    return build(replace(tiny_segmenters, num_classes=2))


def weights(segmenter: Segmenter) -> torch.Tensor:
    return torch.cat([each.flatten() for each in segmenter.state().values()])


def never() -> bool:
    return False


def after(*answers: bool):
    """Says so one after another; it must not be asked more often."""
    given = iter(answers)
    return lambda: next(given)


def test_what_it_begins_with_stays_as_it_is(segmenter: Segmenter):
    before = weights(segmenter)
    training = ContinuedTraining(segmenter, TINY, RULES, seed=0)
    training.learn_from([_image()])
    assert training.advance(3, never)
    torch.testing.assert_close(weights(segmenter), before)
    assert not torch.equal(weights(training.candidate), before)


def test_it_stops_within_an_update_and_goes_on_where_it_stopped(segmenter: Segmenter):
    training = ContinuedTraining(segmenter, TINY, RULES, seed=0)
    training.learn_from([_image()])
    losses: list[float] = []
    assert not training.advance(5, after(False, False, True), losses.append)
    assert (training.updates, len(losses)) == (2, 2)
    assert training.advance(5, never, losses.append)
    assert (training.updates, len(losses)) == (5, 5)
    assert training.advance(5, after())  # nothing is left to do, or to ask
    assert not training.candidate.model.training


def test_the_candidate_is_the_mean_of_the_weights_at_first(segmenter: Segmenter, monkeypatch):
    seen = [weights(segmenter)]
    update = Training.update

    def noted(self: Training) -> float:
        loss = update(self)
        seen.append(weights(self._segmenter))
        return loss

    monkeypatch.setattr(Training, "update", noted)
    training = ContinuedTraining(segmenter, TINY, RULES, seed=0)
    training.learn_from([_image()])
    training.advance(3, never)
    torch.testing.assert_close(weights(training.candidate), torch.stack(seen).mean(dim=0))


def test_new_labels_join_without_a_new_beginning(segmenter: Segmenter):
    training = ContinuedTraining(segmenter, TINY, RULES, seed=0)
    training.learn_from([_image()])
    training.advance(2, never)
    known = weights(training.candidate)
    training.learn_from([_image(), _image(1)])
    torch.testing.assert_close(weights(training.candidate), known)
    assert training.advance(4, never)
    assert training.updates == 4


def test_updates_made_before_count_when_it_is_taken_up_again(segmenter: Segmenter):
    training = ContinuedTraining(segmenter, TINY, RULES, seed=0, updates=7)
    training.learn_from([_image()])
    assert training.advance(7, after())
    assert training.advance(9, never)
    assert training.updates == 9


def test_updates_can_be_counted_from_one_of_them(segmenter: Segmenter):
    training = ContinuedTraining(segmenter, TINY, RULES, seed=0, updates=7)
    training.learn_from([_image()])
    training.advance(12, never)
    training.count_from(10)
    assert training.updates == 2
    assert training.advance(5, never)
    assert training.updates == 5


def test_a_loss_that_is_no_number_ends_it_and_leaves_the_candidate_finite(segmenter: Segmenter):
    training = ContinuedTraining(segmenter, TINY, replace(RULES, learning_rate=1e12), seed=0)
    training.learn_from([_image()])
    with pytest.raises(FloatingPointError, match=r"the loss became .* in step \d+; lower"):
        training.advance(500, never)


def held_out(*sizes: tuple[int, int]) -> list[LabelledImage]:
    """Images of these sizes that nobody looks at."""
    masks = [np.full(size, VOID, np.uint8) for size in sizes]
    return [LabelledImage(lambda: pytest.fail("not to be read"), mask, ()) for mask in masks]


def test_looks_come_every_so_many_updates_wherever_it_was_stopped():
    config = FinetuneConfig(batch_size=4, crop_size=(32, 32))
    rules = ContinuingConfig(updates_per_look=50)
    small = held_out((32, 32))
    looks = [next_look(it, small, config, rules) for it in (0, 1, 49, 50, 120)]
    assert looks == [50, 50, 50, 100, 150]


def test_looks_at_many_pixels_come_less_often_so_that_they_keep_their_share():
    """16 images of 96 x 256 are 384 crops of 32 x 32: as much as 32 updates, of 3 x 4 each."""
    config = FinetuneConfig(batch_size=4, crop_size=(32, 32))
    rules = ContinuingConfig(updates_per_look=50, look_share=0.2)
    assert next_look(0, held_out(*[(96, 256)] * 16), config, rules) == 128  # 32 of 160
    rules = ContinuingConfig(updates_per_look=50, look_share=0.5)
    assert next_look(0, held_out(*[(96, 256)] * 16), config, rules) == 50


def test_it_trains_until_what_is_held_out_gains_no_more(segmenter: Segmenter):
    images, judged = [_image(), _image(1)], [_image(2)]
    courses = []
    end = train_until_converged(
        segmenter, images, judged, TINY, RULES, mean_iou, seed=0,
        on_look=lambda course, score: courses.append((course, score)),
    )  # fmt: skip
    assert not end.is_stopped
    assert end.course.num_looks == RULES.patience
    assert end.course.best_updates == end.course.updates - 5 * RULES.patience
    assert end.course.best_score == max(score for _, score in courses)
    found = mean_iou(evaluate(end.segmenter, judged))
    assert found == pytest.approx(end.course.best_score)
    assert found > mean_iou(evaluate(segmenter, judged)) + 0.1


def test_the_same_seed_gives_the_same_end(segmenter: Segmenter):
    ends = [
        train_until_converged(segmenter, [_image()], [_image(2)], TINY, RULES, mean_iou, seed=3)
        for _ in range(2)
    ]
    assert ends[0].course == ends[1].course
    assert torch.equal(weights(ends[0].segmenter), weights(ends[1].segmenter))


def test_without_anything_to_look_at_it_does_not_begin(segmenter: Segmenter):
    nothing = [LabelledImage(lambda: np.zeros((32, 32, 3), np.uint8), np.full((32, 32), VOID), ())]
    with pytest.raises(ValueError, match="none of the 1 images that are held out can be read"):
        train_until_converged(
            segmenter, [_image()], nothing, TINY, RULES, mean_iou_of_present, seed=0
        )


def test_where_nothing_is_better_the_start_is_the_end(segmenter: Segmenter):
    end = train_until_converged(
        segmenter, [_image()], [_image(2)], TINY, RULES, lambda matrix: 0.5, seed=0
    )
    assert end.segmenter is segmenter
    assert (end.course.best_updates, end.course.updates) == (0, 15)


def test_asked_to_stop_it_gives_the_best_so_far(segmenter: Segmenter):
    scores = iter([0.1, 0.2])
    end = train_until_converged(
        segmenter, [_image()], [_image(2)], TINY, RULES, lambda matrix: next(scores), seed=0,
        should_stop=after(*[False] * 7, True),
    )  # fmt: skip
    assert end.is_stopped
    assert (end.course.best_score, end.course.best_updates) == (0.2, 5)
