from __future__ import annotations

import json

from ralis_backend.core.learning.rewards.scale import ProgressiveScale


def _strides(scale: ProgressiveScale, scores: list[float]) -> list[int]:
    seen = []
    for score in scores:
        scale.observe(score)
        seen.append(scale.stride)
    return seen


def test_cells_shrink_when_the_mean_score_of_some_updates_stops_rising():
    scale = ProgressiveScale((16, 8, 4), patience=2, min_gain=0.1)
    assert scale.stride == 16
    # means 0.2, 0.5 (gain), 0.55 (none: next), 0.1 (another stride: first of it), 0.15 (none: next)
    scores = [0.1, 0.3, 0.5, 0.5, 0.5, 0.6, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2, 0.2]
    assert _strides(scale, scores) == [16] * 5 + [8] * 4 + [4] * 5


def test_a_scale_goes_on_where_another_one_was():
    scores = [0.1, 0.2, 0.2, 0.2, 0.1, 0.2, 0.2, 0.2, 0.2]
    whole = ProgressiveScale((16, 8, 4), patience=2, min_gain=0.1)
    expected = _strides(whole, scores)
    first = ProgressiveScale((16, 8, 4), patience=2, min_gain=0.1)
    _strides(first, scores[:3])
    second = ProgressiveScale((16, 8, 4), patience=2, min_gain=0.1)
    second.restore(json.loads(json.dumps(first.state())))
    assert _strides(second, scores[3:]) == expected[3:]


def test_one_stride_stays():
    assert _strides(ProgressiveScale((4,), 1, 0.5), [0.1] * 5) == [4] * 5
