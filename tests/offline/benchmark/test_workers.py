"""Processes that play: the player is a plain one, so that they start at once."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from ralis_backend.offline.benchmark.workers import Game, play_all

GAMES = [Game(name, seed) for name in ("a", "b") for seed in range(2)]


def open_player(folder: Path):
    def play(game, tell):
        if game.name == "broken":
            raise ValueError("it does not fit")
        if game.name == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if game.name == "slow":
            (folder / "started").touch()
            time.sleep(60)
        tell(0.5)
        (folder / f"{game.name}-{game.seed}").write_text(str(os.getpid()))

    return play


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_game_is_played_once_and_told_of(tmp_path, jobs):
    told: list[tuple[Game, float]] = []
    play_all(partial(open_player, tmp_path), GAMES, jobs, lambda *it: told.append(it))
    assert len(list(tmp_path.iterdir())) == 4
    for game in GAMES:
        assert [share for each, share in told if each == game] == [0, 0.5, 1]
    players = {path.read_text() for path in tmp_path.iterdir()}
    assert (str(os.getpid()) in players) == (jobs == 1)


def test_what_a_player_raises_is_raised_here(tmp_path):
    games = [Game("a", 0), Game("broken", 0)]
    with pytest.raises(ValueError, match="it does not fit"):
        play_all(partial(open_player, tmp_path), games, 2, lambda *_: None)


def test_a_killed_process_is_named_and_the_others_end(tmp_path):
    games = [Game("slow", 0), Game("killed", 7)]
    with pytest.raises(RuntimeError, match="killed, seed 7, was killed"):
        play_all(partial(open_player, tmp_path), games, 2, lambda *_: None)


def test_ctrl_c_ends_the_processes_and_keeps_what_is_done(tmp_path):
    def stop_when_both_play(game: Game, share: float) -> None:
        while share == 0.5 and not (tmp_path / "started").exists():
            time.sleep(0.01)
        if share == 1:
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        play_all(
            partial(open_player, tmp_path), [Game("slow", 0), Game("a", 0)], 2, stop_when_both_play
        )
    assert time.monotonic() - started < 30
    assert (tmp_path / "a-0").exists()


def test_without_games_no_player_is_opened():
    play_all(lambda: pytest.fail("opened"), [], 4, lambda *_: None)
