import pytest
import torch

from ralis_backend.core.learning.average import MovingAverage
from ralis_backend.core.segmenter import SegmenterSpec, build
from tests.tiny_segmenter import TinySegmenter


def filled(segmenter, value):
    """The same segmenter, every weight of which is `value` now."""
    with torch.no_grad():
        for tensor in segmenter.state().values():
            tensor.fill_(value)
    return segmenter


def tiny():
    return TinySegmenter(SegmenterSpec(2, "tiny", encoder_weights=None))


def test_first_steps_count_equally_and_later_ones_as_the_decay_says():
    moving = filled(tiny(), 4.0)
    average = MovingAverage(moving, decay=0.6)
    seen = []
    for value in (2.0, 0.0, 10.0):
        average.follow(filled(moving, value))
        seen.append(float(next(iter(average.segmenter.state().values())).flatten()[0]))
    # decays 1/2, 0.6 (2/3 is more), 0.6
    assert seen == pytest.approx([3.0, 0.6 * 3.0, 0.6 * 1.8 + 0.4 * 10])


def test_it_begins_as_the_segmenter_and_is_another_object():
    moving = filled(tiny(), 1.0)
    average = MovingAverage(moving, decay=0.9)
    filled(moving, 5.0)
    assert all((tensor == 1.0).all() for tensor in average.segmenter.state().values())


def test_batch_statistics_are_averaged_and_counts_copied():
    moving = build(SegmenterSpec(2, encoder_weights=None))
    average = MovingAverage(moving, decay=0.5)
    before = {name: each.clone() for name, each in moving.state().items()}
    filled(moving, 3.0)
    average.follow(moving)
    (mean,) = [name for name in before if name.endswith("features.0.1.running_mean")]
    (count,) = [name for name in before if name.endswith("features.0.1.num_batches_tracked")]
    averaged = average.segmenter.state()
    torch.testing.assert_close(averaged[mean], (before[mean] + 3.0) / 2)
    assert averaged[count] == 3


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_never_or_always_forgets_is_refused(decay):
    with pytest.raises(ValueError, match=r"decay .* expected at least 0, below 1"):
        MovingAverage(tiny(), decay)
