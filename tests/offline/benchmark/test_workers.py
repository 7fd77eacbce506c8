"""Processes that play: the player is a plain one, so that they start at once."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from ralis_backend.offline.benchmark.workers import Match, play_all

MATCHES = [Match(name, seed) for name in ("a", "b") for seed in range(2)]


def open_player(folder: Path):
    def play(match, tell):
        if match.name == "broken":
            raise ValueError("it does not fit")
        if match.name == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if match.name == "slow":
            (folder / "started").touch()
            time.sleep(60)
        tell(0.5)
        (folder / f"{match.name}-{match.seed}").write_text(str(os.getpid()))

    return play


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_game_is_played_once_and_told_of(tmp_path, jobs):
    told: list[tuple[Match, float]] = []
    play_all(partial(open_player, tmp_path), MATCHES, jobs, lambda *it: told.append(it))
    assert len(list(tmp_path.iterdir())) == 4
    for match in MATCHES:
        assert [share for each, share in told if each == match] == [0, 0.5, 1]
    players = {path.read_text() for path in tmp_path.iterdir()}
    assert (str(os.getpid()) in players) == (jobs == 1)


def test_what_a_player_raises_is_raised_here(tmp_path):
    matches = [Match("a", 0), Match("broken", 0)]
    with pytest.raises(ValueError, match="it does not fit"):
        play_all(partial(open_player, tmp_path), matches, 2, lambda *_: None)


def test_a_killed_process_is_named_and_the_others_end(tmp_path):
    matches = [Match("slow", 0), Match("killed", 7)]
    with pytest.raises(RuntimeError, match="killed, seed 7, was killed"):
        play_all(partial(open_player, tmp_path), matches, 2, lambda *_: None)


def test_ctrl_c_ends_the_processes_and_keeps_what_is_done(tmp_path):
    def stop_when_both_play(match: Match, share: float) -> None:
        while share == 0.5 and not (tmp_path / "started").exists():
            time.sleep(0.01)
        if share == 1:
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        play_all(
            partial(open_player, tmp_path),
            [Match("slow", 0), Match("a", 0)],
            2,
            stop_when_both_play,
        )
    assert time.monotonic() - started < 30
    assert (tmp_path / "a-0").exists()


def test_without_games_no_player_is_opened():
    play_all(lambda: pytest.fail("opened"), [], 4, lambda *_: None)
