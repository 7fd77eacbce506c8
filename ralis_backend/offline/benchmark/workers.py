"""Matches -> processes that play them. A player writes its results; here is who plays what."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess


@dataclass(frozen=True)
class Match:
    """A strategy and a seed."""

    name: str
    seed: int


Player = Callable[[Match, Callable[[float], None]], None]
"""Plays a match to its end, and tells now and then what share of it is done."""


def play_all(
    open_player: Callable[[], Player],
    matches: Iterable[Match],
    jobs: int,
    on_progress: Callable[[Match, float], None],
) -> None:
    """Play all matches, `jobs` at a time: one in this process, several in one process each.

    When this process ends, for whatever reason, the others end as well.

    Args:
        open_player: called once in each process; what it is made of must be picklable.
        matches: in the order in which they are begun.
        jobs: processes.
        on_progress: told the share of a match that is done, from 0 to 1.

    Raises:
        RuntimeError: if a process is killed. What a player raises is raised here.
    """
    waiting = deque(matches)
    jobs = min(jobs, len(waiting))
    if jobs <= 1:
        _play_here(open_player, waiting, on_progress)
        return
    context = multiprocessing.get_context("spawn")  # a fork would keep threads and CUDA
    processes: list[SpawnProcess] = []
    playing: dict[Connection, Match] = {}
    try:
        for _ in range(jobs):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, open_player), daemon=True)
            process.start()
            processes.append(process)
            theirs.close()  # theirs alone: so that we see it close when they die
            playing[ours] = _hand_out(ours, waiting.popleft(), on_progress)
        while playing:
            ready = wait(playing)
            for connection in [each for each in playing if each in ready]:
                match = playing[connection]
                share = _received(connection, match)
                on_progress(match, share)
                if share < 1:
                    continue
                del playing[connection]
                if waiting:
                    playing[connection] = _hand_out(connection, waiting.popleft(), on_progress)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _play_here(
    open_player: Callable[[], Player],
    matches: Iterable[Match],
    on_progress: Callable[[Match, float], None],
) -> None:
    player = None
    for match in matches:
        player = player or open_player()
        on_progress(match, 0.0)
        player(match, lambda share, match=match: on_progress(match, min(share, 0.999)))  # type: ignore[misc]
        on_progress(match, 1.0)


def _hand_out(
    connection: Connection, match: Match, on_progress: Callable[[Match, float], None]
) -> Match:
    connection.send(match)
    on_progress(match, 0.0)
    return match


def _received(connection: Connection, match: Match) -> float:
    try:
        message = connection.recv()
    except (EOFError, ConnectionResetError) as error:
        raise RuntimeError(
            f"the process that played {match.name}, seed {match.seed}, was killed; the machine may "
            "be out of memory: call again with fewer --jobs, finished games are kept"
        ) from error
    if isinstance(message, Exception):
        raise message
    return float(message)


def _work(connection: Connection, open_player: Callable[[], Player]) -> None:
    """A process: plays what it is sent until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process, which ends us
    try:
        player = open_player()
        while True:
            player(connection.recv(), lambda share: connection.send(min(share, 0.999)))
            connection.send(1.0)
    except (EOFError, BrokenPipeError):  # nobody is there any more
        return
    except Exception as error:
        error.add_note(traceback.format_exc())  # it does not travel with the error
        connection.send(error)
