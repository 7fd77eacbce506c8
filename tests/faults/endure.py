"""One fault in a recorded play: what became of the project, and whether that is what should."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.injection import KINDS_OF, LASTING, LIES, Fault, Injector, Point
from tests.faults.outcome import (
    broken_promises,
    differences,
    doubled,
    left_out,
    leftovers,
    snapshot,
)
from tests.faults.play import (
    FIVE_MINUTES_S,
    Boundary,
    LoopStopped,
    NotReached,
    Play,
    files_of,
    in_a_dying_process,
    taken_up,
)
from tests.faults.record import Record

ROUNDS_OF_A_LASTING_FAULT = 2
EXPORT, MIGRATION = -1, -2
"""In place of a boundary: what comes after the loop."""


@dataclass(frozen=True)
class Case:
    """A fault at a point after one of a record's boundaries, in its export or its migration."""

    mode: str
    boundary: int
    fault: Fault
    point: Point

    @property
    def name(self) -> str:
        """What `--case` takes."""
        return f"{self.mode}:{self.boundary}:{self.fault.number}:{self.fault.kind}"

    def __str__(self) -> str:
        return f"{self.fault.kind} in {self.point.step} at {self.point.what} ({self.name})"


@dataclass(frozen=True)
class Outcome:
    """What a fault has led to.

    problems: promises that were broken, or sections of the end that differ; empty if survived.
    notes: what healed only later, or was left behind.
    """

    case: Case
    problems: Sequence[str]
    notes: Sequence[str]


def cases(kept: Record) -> Iterator[Case]:
    """Every fault that a record has a point for."""
    rounds = [*enumerate(points for _, points in kept.boundaries)]
    rounds += [(EXPORT, kept.export_points), (MIGRATION, kept.migration_points)]
    for boundary, points in rounds:
        for number, point in enumerate(points):
            for kind in sorted(KINDS_OF[point.family]):
                yield Case(kept.mode, boundary, Fault(number, kind), point)


def endure(case: Case, kept: Record, root: Path, injector: Injector) -> Outcome:
    """Play on from the case's boundary, with its fault, to the end."""
    injector.heal()
    act = {EXPORT: _export, MIGRATION: _migrate}.get(case.boundary, _work)
    with taken_up(_start(case, kept), root / "disturbed", kept.mode, kept.scenes, injector) as play:
        try:
            problems, notes = act(play, case, kept)
        except NotReached:
            return Outcome(case, [], ["not reached"])
        except LoopStopped as stopped:
            return Outcome(case, [f"stopped: {stopped}"], [])
        except Exception as error:  # what annotators or the books stumbled over
            return Outcome(case, [f"stopped: {type(error).__name__}: {error}"], [])
        notes += [f"left behind: {name}" for name in leftovers(play.folder)]
    return Outcome(case, problems, notes)


def _start(case: Case, kept: Record) -> Boundary:
    assert kept.end is not None
    assert kept.old is not None
    special = {EXPORT: kept.end, MIGRATION: kept.old}
    return special.get(case.boundary) or kept.boundaries[case.boundary][0]


# The worker's loop


def _work(play: Play, case: Case, kept: Record) -> tuple[list[str], list[str]]:
    """Problems and notes; the end comes at once if all is as it was without the fault."""
    _fail(play, case)
    problems, notes = _play_on(play, case, kept)
    if play.num_crashes:
        problems.append("ended: the worker's process, until somebody starts it again")
    return list(dict.fromkeys(problems)), notes


def _play_on(play: Play, case: Case, kept: Record) -> tuple[list[str], list[str]]:
    problems: list[str] = []
    notes: list[str] = []
    has_scenes = True
    while True:
        play.settle()
        problems += doubled(play)
        found = differences(kept.rests[play.scene], snapshot(play))
        if not found:
            return problems, notes
        if not has_scenes:
            return [*problems, *_problems(play, case, found, notes)], [*notes, *left_out(play)]
        notes += [f"later: {each}" for each in found]
        has_scenes = play.perform()
        if not has_scenes:  # once more, for what a reading in the last scene has missed
            play.set_up()
            play.clock.skip(FIVE_MINUTES_S)


def _fail(play: Play, case: Case) -> None:
    if case.fault.kind == "kill":
        play.advance_until_killed(case.fault)
        return
    play.open()
    play.advance(case.fault)
    if case.fault.kind in LASTING:
        for _ in range(ROUNDS_OF_A_LASTING_FAULT):
            play.skip_pause()
            play.advance()
        play.injector.heal()


def _problems(play: Play, case: Case, found: Sequence[str], notes: Sequence[str]) -> list[str]:
    """Broken promises; without any, what differs, unless something else was learned from."""
    learned_late = any(note.startswith(("later: labels", "later: images")) for note in notes)
    may_differ = case.fault.kind in LIES or left_out(play) or learned_late
    broken = broken_promises(play)
    return broken if broken or may_differ else [f"differs: {each}" for each in found]


# Export and migration


def _export(play: Play, case: Case, kept: Record) -> tuple[list[str], list[str]]:
    """The export fails whole, and succeeds afterwards as if nothing had happened."""
    out, problems = play.folder / "export", []

    def export() -> None:
        play.open()
        play.export(case.fault)

    is_done = _attempt(export, case.fault)
    if not is_done and out.exists() and files_of(out) != kept.export:
        problems.append("differs: half an export was left under its name")
    shutil.rmtree(out, ignore_errors=True)
    play.injector.heal()
    play.close()
    play.open()
    if play.export() != kept.export:
        problems.append("differs: the next export is another one")
    return problems, []


def _migrate(play: Play, case: Case, kept: Record) -> tuple[list[str], list[str]]:
    """The start fails, and the next one finds everything."""

    def open_once() -> None:
        with play.injector.counting(case.fault), play.injector.step("migrate"):
            play.open()

    _attempt(open_once, case.fault)
    play.injector.heal()
    play.restart()
    play.settle()
    found = differences(kept.migrated, snapshot(play))
    return [*broken_promises(play), *[f"differs: {each}" for each in found]], []


def _attempt(act: Callable[[], object], fault: Fault) -> bool:
    """Act until the fault; False if it made that fail."""
    try:
        if fault.kind == "kill":
            in_a_dying_process(act)
            return False
        act()
    except BaseException:
        return False
    return True
