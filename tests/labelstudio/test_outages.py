from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ralis_backend.labelstudio import outages as module
from ralis_backend.labelstudio.errors import NotFound, Unavailable
from ralis_backend.labelstudio.outages import (
    DOWN_AFTER,
    PATIENT_EVERY_S,
    PROBE_S,
    HostUnavailable,
    Outages,
)

DOWN = Unavailable("bucket.test did not deliver an image: ReadTimeout")


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.moment = 1_000.0

    def __call__(self) -> float:
        return self.moment


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ask(clock: Clock) -> Callable[..., str]:
    """How a host is asked that answers so after some seconds."""
    outages = Outages(clock)

    def ask(error: Exception | None = DOWN, host: str = "bucket.test", seconds: float = 0.0) -> str:
        asked = "not at all"
        try:
            with outages.asking(host) as is_hasty:
                asked = "in haste" if is_hasty else "patiently"
                clock.moment += seconds
                if error is not None:
                    raise error
        except type(error or DOWN):
            pass
        return asked

    ask.outages = outages  # type: ignore[attr-defined]
    return ask


def test_a_host_that_fails_again_and_again_is_asked_once_a_minute_whether_it_is_back(clock, ask):
    assert [ask() for _ in range(DOWN_AFTER)] == ["patiently"] + ["in haste"] * (DOWN_AFTER - 1)
    assert [ask(), ask(host="other.test")] == ["not at all", "patiently"]
    clock.moment += PROBE_S
    assert [ask(seconds=10.0), ask()] == ["in haste", "not at all"]
    clock.moment += PROBE_S - 1
    assert ask() == "not at all", "the minute begins when it has failed"
    clock.moment += 1
    assert [ask(None), ask(None), ask()] == ["in haste", "patiently", "patiently"]


def test_a_host_that_may_be_no_more_than_slow_is_waited_for_now_and_then(clock, ask):
    asked = []
    for _ in range(23):
        asked.append(ask())
        clock.moment += PROBE_S
    assert [number for number, how in enumerate(asked) if how == "patiently"] == [0, 10, 20]
    assert PATIENT_EVERY_S == 10 * PROBE_S


def test_one_that_fails_now_and_then_is_not_down(clock, ask):
    for _ in range(3):
        for _ in range(DOWN_AFTER - 1):
            ask()
        assert ask(None) == "in haste"


@pytest.mark.parametrize("answer", [NotFound("404"), ValueError("400")])
def test_an_answer_ends_an_outage_also_if_it_is_a_refusal(clock, ask, answer):
    for _ in range(DOWN_AFTER - 1):
        ask()
    assert [ask(answer), ask()] == ["in haste", "patiently"]


def test_who_may_not_be_asked_has_not_answered(clock, ask):
    for _ in range(DOWN_AFTER - 1):
        ask()
    assert [ask(module.ImageNotAllowed("private")), ask(), ask()] == [
        "in haste",
        "in haste",
        "not at all",
    ]


def test_while_one_asks_whether_a_host_is_back_nobody_else_does(clock, ask):
    for _ in range(DOWN_AFTER):
        ask()
    clock.moment += PROBE_S
    with ask.outages.asking("bucket.test"):
        assert ask() == "not at all"
    assert ask() == "patiently"


def test_the_error_says_which_host_it_was_and_whether_it_was_asked(clock):
    outages, said = Outages(clock), []
    for _ in range(DOWN_AFTER + 1):
        with pytest.raises(HostUnavailable) as failed, outages.asking("bucket.test"):
            raise DOWN
        said.append((failed.value.host, failed.value.was_asked))
    assert said == [("bucket.test", True)] * DOWN_AFTER + [("bucket.test", False)]


def test_the_error_says_for_how_long_its_host_has_not_answered(clock, ask):
    def failing_s() -> float:
        with pytest.raises(HostUnavailable) as failed, ask.outages.asking("bucket.test"):
            raise DOWN
        return failed.value.failing_s

    said = []
    for begin in (lambda: None, lambda: ask(None), lambda: ask.outages.excuse("bucket")):
        clock.moment += PROBE_S
        begin()
        for _ in range(DOWN_AFTER + 1):
            said.append(failing_s())
            clock.moment += 1.0
    assert said == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0] * 3


def test_one_that_another_thread_excuses_meanwhile_has_failed_for_no_time(clock):
    outages = Outages(clock)

    class Excused(module._Outage):
        """Of a host that is excused as soon as somebody has seen that it is down."""

        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            if name == "num_failures" and value >= DOWN_AFTER:
                outages.excuse("bucket")
            return value

    outages._of["bucket.test"] = Excused(DOWN_AFTER, since=900.0, asked_at=990.0)
    with pytest.raises(HostUnavailable, match="the last 5 images") as failed:
        outages.asking("bucket.test").__enter__()
    assert failed.value.failing_s == 0.0


def test_the_error_of_what_was_not_asked_for_says_why(ask):
    for _ in range(DOWN_AFTER):
        ask()
    with (
        pytest.raises(
            Unavailable, match=r"the last 5 images from there failed.*: bucket\.test did"
        ),
        ask.outages.asking("bucket.test"),
    ):
        pass


def test_what_failed_for_another_reason_is_not_down_and_not_waited_for_either(clock, ask):
    for host in ("a uploads", "b uploads"):
        for _ in range(DOWN_AFTER):
            ask(host=host)
    ask.outages.excuse("a ")
    assert [ask(host="a uploads"), ask(host="b uploads")] == ["in haste", "not at all"]
