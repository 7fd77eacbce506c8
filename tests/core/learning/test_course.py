from __future__ import annotations

import math

from ralis_backend.core.learning.course import ContinuingConfig, Course

RULES = ContinuingConfig(patience=2, least_gain=0.01)


def course_of(*scores: float) -> Course:
    """Looks after 0, 50, 100, ... updates."""
    course = Course()
    for number, score in enumerate(scores):
        course = course.seen(score, 50 * number, RULES)
    return course


def test_the_best_is_where_the_score_last_gained():
    assert course_of(0.3, 0.4, 0.35) == Course(100, 0.4, 50, num_looks=1)


def test_less_than_the_least_gain_is_none():
    assert course_of(0.3, 0.309) == Course(50, 0.3, 0, num_looks=1)
    assert course_of(0.3, 0.3101) == Course(50, 0.3101, 50, num_looks=0)


def test_it_has_converged_after_as_many_looks_without_a_gain_as_its_patience():
    assert not course_of(0.3, 0.2).has_converged(RULES)
    assert course_of(0.3, 0.2, 0.3).has_converged(RULES)
    assert not course_of(0.3, 0.2, 0.4, 0.3).has_converged(RULES)


def test_a_score_that_is_no_number_is_no_gain():
    assert course_of(0.3, math.nan) == Course(50, 0.3, 0, num_looks=1)
    assert course_of(math.nan) == Course(0, None, 0, num_looks=1)
