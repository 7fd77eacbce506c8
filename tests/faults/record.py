"""A play that nothing disturbs: where it can be taken up, what can fail there, what comes of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

from ralis_backend.core.segmenter import SEGMENTERS
from tests.faults.clock import Clock
from tests.faults.injection import Injector, Point
from tests.faults.old_database import make_old
from tests.faults.outcome import Snapshot, broken_promises, leftovers, snapshot
from tests.faults.play import PLAYS, Boundary, Play, Scene, taken_up
from tests.tiny_segmenter import TinySegmenter


@dataclass
class Record:
    """An undisturbed play.

    boundaries: before each round of the loop, with the points of that round.
    rests: what it had come to before each scene and at the end, by the next scene's number.
    end, export: the play's end, and the files of the dataset exported then.
    old, migrated: the end in the tables of the first release, and what it comes to from there.
    """

    mode: str
    scenes: Sequence[Scene]
    boundaries: list[tuple[Boundary, list[Point]]] = field(default_factory=list)
    rests: dict[int, Snapshot] = field(default_factory=dict)
    end: Boundary | None = None
    export: dict[str, bytes] = field(default_factory=dict)
    export_points: list[Point] = field(default_factory=list)
    old: Boundary | None = None
    migrated: Snapshot = field(default_factory=dict)
    migration_points: list[Point] = field(default_factory=list)


@contextmanager
def stage() -> Iterator[tuple[Path, Injector]]:
    """A folder in memory where there is one, watched; and small segmenters."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="ralis-faults-", dir=memory if memory.is_dir() else None
    ) as name:
        injector = Injector(Path(name))
        with mock.patch.dict(SEGMENTERS, {TinySegmenter.kind: TinySegmenter}), injector.installed():
            yield Path(name), injector


def record(mode: str, root: Path, injector: Injector) -> Record:
    """Play once from the first image to the export; everything is kept below `root`."""
    tool, scenes = PLAYS[mode]()
    kept = Record(mode, scenes)
    folder = root / "undisturbed"
    folder.mkdir(parents=True)
    clock = Clock()
    with clock.installed():
        play = Play(folder, tool, mode, scenes, injector, clock)
        play.open()
        play.set_up()
        while True:
            _settle(play, kept, root)
            kept.rests[play.scene] = snapshot(play)
            if not play.perform():
                break
        problems = [*broken_promises(play), *leftovers(folder)]
        assert not problems, problems
        assert not play.num_crashes
        kept.end = play.boundary(root / "end")
        kept.export = play.export()
        kept.export_points = injector.points
        play.end()
        _record_migration(kept, root, injector, clock)
    return kept


def _record_migration(kept: Record, root: Path, injector: Injector, clock: Clock) -> None:
    """Bring the last database to the first release's tables, and open it as today's does."""
    assert kept.end is not None
    kept.old = replace(kept.end, folder=root / "old")
    shutil.copytree(kept.end.folder, kept.old.folder)
    make_old(kept.old.folder)
    with taken_up(kept.old, root / "migrated", kept.mode, kept.scenes, injector) as play:
        with injector.counting(), injector.step("migrate"):
            play.open()
        kept.migration_points = injector.points
        play.restart()
        play.settle()
        kept.migrated = snapshot(play)
        problems = broken_promises(play)
        assert not problems, problems


def _settle(play: Play, kept: Record, root: Path) -> None:
    is_busy = True
    while is_busy:
        boundary = play.boundary(root / f"boundary-{len(kept.boundaries)}")
        is_busy = play.advance()
        kept.boundaries.append((boundary, play.injector.points))
