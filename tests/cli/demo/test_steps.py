import io

import pytest
from rich.console import Console

from ralis_backend.cli.demo.steps import SECONDS_BETWEEN_LINES, step


def lines_of(do, total=None, width=40):
    """What a step writes into a file; `do` gets the step and a clock to turn on."""
    now = [0.0]

    def wait(seconds):
        now[0] += seconds

    file = io.StringIO()
    console = Console(file=file, width=width)
    with step(console, "Round 1: labelling 24 regions", total, lambda: now[0]) as shown:
        do(shown, wait)
    return file.getvalue().splitlines()


def test_a_file_gets_a_line_when_something_else_is_done():
    def do(shown, wait):
        shown.tell("Round 1: ranking the pool")
        shown.tell("Round 1: ranking the pool")
        shown.tell("Round 1: training v1, epoch 1, loss 0.9")
        shown.tell("Round 1: training v1, epoch 2, loss 0.8")

    assert lines_of(do) == [
        "Round 1: labelling 24 regions …",
        "Round 1: ranking the pool …",
        "Round 1: training v1, epoch 1, loss 0.9 …",
    ]


def test_a_long_step_says_now_and_then_how_far_it_is():
    def do(shown, wait):
        for completed in range(24):
            wait(SECONDS_BETWEEN_LINES / 10)
            shown.tell(completed=completed + 1)

    assert lines_of(do, total=24)[1:] == [
        "Round 1: labelling 24 regions … (42%)",
        "Round 1: labelling 24 regions … (83%)",
    ]


def test_no_line_is_broken_and_no_sign_taken_for_a_colour():
    name = "[red]" + "x" * 100
    assert lines_of(lambda shown, wait: shown.tell(name))[1] == f"{name} …"


def on_a_terminal(kind):
    """What a step writes to a terminal of this kind (`$TERM`)."""
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=True, width=80, color_system=None, _environ={"TERM": kind}
    )
    with step(console, "Uploading", 4) as shown:
        shown.tell("Uploading images", 2)
    return file.getvalue()


def test_a_terminal_gets_a_bar_and_no_lines():
    written = on_a_terminal("xterm-256color")
    assert "Uploading …" not in written
    assert "50%" in written


@pytest.mark.parametrize("kind", ["dumb", "unknown"])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(kind):
    assert on_a_terminal(kind).splitlines() == ["Uploading …", "Uploading images … (50%)"]
