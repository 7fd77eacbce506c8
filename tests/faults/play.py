"""A labelling project from its first image to its export, with scripted annotators.

A play can be stopped before any round of the worker's loop, kept, and taken up again from there.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.regions import Region, grid
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.export import export_project
from ralis_backend.online.learner import Learner
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.attempts import FAILURE
from ralis_backend.online.tool import ToolTask
from ralis_backend.online.worker import Worker, WorkerConfig
from ralis_backend.online.worker.loop import pause_after
from tests.faults.clock import Clock
from tests.faults.injection import KILLED, Fault, FaultyTool, Injector
from tests.faults.values import dumps, loads
from tests.online.fake_tool import CLASSES, START, FakeTool, picture

RANKING = RankingConfig(
    strategy="entropy",
    region_size=(32, 32),
    regions_per_round=3,
    spec=SegmenterSpec(1, "tiny", encoder_weights=None),
)
FINETUNE = FinetuneConfig(steps=2, batch_size=2, crop_size=(32, 32))
FIVE_MINUTES_S = 301.0
MAX_FAILURES = 30
"""Tries after which a loop is said to have stopped: hours, with its growing pauses."""


class AnnotatedTool(FakeTool):
    """The fake tool with annotators' times of their own, and begun tasks that stay."""

    def __init__(self, num_images: int) -> None:
        super().__init__(num_images)
        self.made_at = START

    def kept(self) -> bytes:
        """Everything that it holds, as JSON; images by their numbers."""
        return dumps({**vars(self), "files": list(self.files)})

    @classmethod
    def taken_up(cls, content: bytes) -> AnnotatedTool:
        """The tool of which `content` was kept."""
        state = loads(content)
        tool = cls(0)
        vars(tool).update(state, files={number: picture(number) for number in state["files"]})
        return tool

    def create_crop_tasks(self, *arguments: Any) -> list[ToolTask]:
        before, self.clock = self.clock, self.made_at  # more calls must not shift annotations
        try:
            return super().create_crop_tasks(*arguments)
        finally:
            self.made_at, self.clock = self.clock, before

    def begun_tasks(self, project_id: int, task_ids: Sequence[int]) -> list[int]:
        self.begun = {each.task_id for each in self.all_annotations[2].values()}
        return super().begun_tasks(project_id, task_ids)

    def delete_unopened_tasks(self, project_id: int, task_ids: Sequence[int]) -> list[int]:
        self.begun = {each.task_id for each in self.all_annotations[2].values()}
        return super().delete_unopened_tasks(project_id, task_ids)

    def queue(self) -> list[int]:
        """As in the label stream: what was labelled once has no prediction, and comes last."""
        done = {annotation.task_id for annotation in self.all_annotations[2].values()}
        waiting = [task_id for task_id in self.region_tasks if task_id not in done]
        return sorted(waiting, key=self._order)

    def _order(self, task_id: int) -> float:
        prediction = self.predictions.get(task_id)
        return 1.0 if prediction is None else -prediction.usefulness

    def place(self, task_id: int) -> tuple[int, int, int]:
        """Where a region task lies: image, row, column."""
        data = self.region_tasks[task_id].data
        return data["source_task"], data["row"], data["col"]

    def add_image(self, number: int) -> None:
        """Somebody uploads another image."""
        self.files[number] = picture(number)
        self.pool_tasks.append(ToolTask(number, START, f"/data/{number}.png"))


Scene = Callable[["Play"], None]

_MOMENT = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}")


@dataclass(frozen=True)
class Boundary:
    """A play before a round of the loop: its folder, its tool, what annotators have done."""

    folder: Path
    tool: AnnotatedTool
    skipped: timedelta
    scene: int


class Play:
    """A project on files of its own.

    Args:
        folder: database, files, exports.
        tool: the labelling tool.
        mode: `crops` or `in-place`.
        scenes: what annotators do, one scene whenever the worker has come to rest.
        scene: the next one's number.
    """

    def __init__(
        self,
        folder: Path,
        tool: AnnotatedTool,
        mode: str,
        scenes: Sequence[Scene],
        injector: Injector,
        clock: Clock,
        scene: int = 0,
    ) -> None:
        self.folder, self.tool, self.scene = folder, tool, scene
        self.injector, self.clock = injector, clock
        self.num_crashes = 0
        self._scenes = scenes
        self._config = WorkerConfig(mode=mode, ranking=RANKING, finetune=FINETUNE, trust_rounds=0)
        self.store: Store | None = None
        self.learner: Learner | None = None
        self._web_store: Store | None = None

    def open(self) -> None:
        """Open the store and make a worker."""
        self.store = open_store(self.folder)
        self.worker = Worker(self.store, FaultyTool(self.tool, self.injector), self._config)
        if self.learner is None:
            self._start_web()
        self.worker._stop = _Pauses(self.clock)  # it waits there when a failure cannot be noted

    def close(self) -> None:
        """End the worker; the web process goes on."""
        if self.store is not None:
            self.store.close()
        self.store = None

    def end(self) -> None:
        """End both."""
        self.close()
        if self._web_store is not None:
            self._web_store.close()

    def restart(self) -> None:
        """As a worker that is started again, which looks at everything first."""
        self.close()
        self.open()
        stop = _Pauses(self.clock)
        stop.set()
        self.worker.run(stop)
        stop.clear()

    def advance(self, fault: Fault | None = None) -> bool:
        """One round of the loop; False if nothing was due. A loop that ends is started again."""
        try:
            with self.injector.counting(fault):
                return self.worker._advance_all_or_wait()
        except (KeyboardInterrupt, SystemExit):
            self.restart()
        except Exception:  # a supervisor starts it again
            self.num_crashes += 1
            self.injector.heal()
            self.restart()
        return True

    def advance_until_killed(self, fault: Fault) -> None:
        """One round in a process of its own, which the fault ends; the tool goes on from there."""
        left = self.folder / "tool.json"

        def act() -> None:
            self.injector.on_kill = lambda: _keep(self.tool, left)
            self.open()
            self.advance(fault)

        in_a_dying_process(act)
        self.tool = AnnotatedTool.taken_up(left.read_bytes())
        left.unlink()
        self.restart()

    def settle(self) -> None:
        """Let the worker do all that is due, its pauses skipped.

        Raises:
            LoopStopped: if it does not come to rest.
        """
        num_failures = 0
        for _ in range(200):
            if self.advance():
                continue
            if not self.skip_pause():
                return
            num_failures += 1
            if num_failures > MAX_FAILURES:
                raise LoopStopped(self._errors())
        raise LoopStopped(f"it never comes to rest; {self._errors()}")

    def perform(self) -> bool:
        """The next scene; False if there is none."""
        if self.scene == len(self._scenes):
            return False
        scene = self._scenes[self.scene]
        self.scene += 1
        self.set_up()
        scene(self)
        return True

    def _start_web(self) -> None:
        """A web process, which knows the project if it is connected."""
        self._web_store = open_store(self.folder)
        self.learner = Learner(self._web_store, RANKING, None)
        if self._web_store.projects.find(self.tool.pool.uid) is not None:
            self.set_up()

    def set_up(self) -> None:
        """What Label Studio asks the web process before each task."""
        assert self.learner is not None
        pool = self.tool.pool
        self.learner.register(pool.uid, pool.label_config, CLASSES, {})

    def boundary(self, folder: Path) -> Boundary:
        """Keep the play as it is."""
        shutil.copytree(self.folder, folder)
        return Boundary(folder, copy.deepcopy(self.tool), self.clock.skipped, self.scene)

    def webhook(self, action: str, payload: Any, uid: str = "2.200") -> None:
        assert self.learner is not None
        self.learner.learn(uid, action, payload)

    def regions_of(self, annotation: Any) -> list[Region]:
        """What a whole-image annotation labels: its boxes, else the image in regions."""
        boxes = [Region(*each["box"]) for each in annotation.results if "box" in each]
        return boxes or grid((64, 96), RANKING.region_size)

    def export(self, fault: Fault | None = None) -> dict[str, bytes]:
        """The exported dataset, by file."""
        assert self.store is not None
        out = self.folder / "export"
        images = FaultyTool(self.tool, self.injector).image
        with self.injector.counting(fault), self.injector.step("export"):
            export_project(self.store, images, "1.100", out)
        content = files_of(out)
        shutil.rmtree(out)
        return content

    def skip_pause(self) -> bool:
        """To the end of a pause or of a dead worker's lease; False if nobody waits."""
        assert self.store is not None
        store = self.store
        pauses = [
            pause_after(look.num_failures) if look.retry_at else self._config.lease_s
            for look in store.projects.looks()
            if look.retry_at or look.lease.owner
        ]
        pauses += [
            pause_after(store.attempts.count(project.id, FAILURE, name))
            for project in store.projects.all()
            for name in store.attempts.failures(project.id)
        ]
        pauses += [
            (image.retry_at - now()).total_seconds()
            for project in self.store.projects.all()
            for image in self.store.images.of(project.id)
            if image.retry_at is not None and image.retry_at > now()
        ]
        if pauses:
            self.clock.skip(max(pauses) + 0.01)
        return bool(pauses)

    def _errors(self) -> str:
        assert self.store is not None
        return "; ".join(str(project.last_error) for project in self.store.projects.all())


class NotReached(Exception):
    """The fault's point did not come: a statement may be saved where nothing has changed."""


class _Pauses(threading.Event):
    """A stop event for which time passes at once."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.skip(timeout or 0.0)
        return self.is_set()


class LoopStopped(Exception):
    """The loop does not come to rest, or annotators have nothing to do; the message says why."""


def in_a_dying_process(act: Callable[[], object]) -> None:
    """Act in a child process, which must be killed by a fault meanwhile."""
    child = os.fork()
    if not child:
        try:
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != KILLED:
        raise NotReached


def files_of(folder: Path) -> dict[str, bytes]:
    """What the files of a folder hold, by name; but for the moment that its README names."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): _MOMENT.sub(b"<moment>", path.read_bytes())
        if path.name == "README.md"
        else path.read_bytes()
        for path in files
    }


def open_store(folder: Path) -> Store:
    """The store of a play."""
    return Store.open(f"sqlite:///{folder / 'ralis.db'}", folder / "blobs")


def _keep(tool: AnnotatedTool, path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, tool.kept())
    os.close(descriptor)


# What annotators do, in crops


def crops_play() -> tuple[AnnotatedTool, list[Scene]]:
    """Two annotators: regions painted, skipped, edited, deleted; an image; lost webhooks."""
    return AnnotatedTool(4), [
        _first_round,
        _later,
        _second_thoughts,
        _later,
        _start_training,
        _later,
    ]


def _head(play: Play, count: int) -> list[int]:
    queue = play.tool.queue()
    if len(queue) < count:
        raise LoopStopped(f"annotators find {len(queue)} regions in the queue, need {count}")
    return queue[:count]


def _label(play: Play, task_id: int, *, is_heard: bool = True, **values: Any) -> None:
    event = play.tool.annotate(task_id, **values)
    if is_heard:
        play.webhook("ANNOTATION_CREATED", event)


def _first_round(play: Play) -> None:
    first, second, third, skipped = _head(play, 4)
    useful = [{"mask": play.tool.truth(second).tolist()}, {"type": "choices", "useful": True}]
    _label(play, first)
    _label(play, second, results=useful)
    _label(play, skipped, results=[], is_skipped=True, annotator="bob")
    _label(play, third, annotator="bob", is_heard=False)


def _later(play: Play) -> None:
    play.clock.skip(FIVE_MINUTES_S)


def _second_thoughts(play: Play) -> None:
    """Annotation 1 is edited, 4 deleted; a new image is annotated as a whole; one more region."""
    tool = play.tool
    first = tool.all_annotations[2][1].task_id
    changed = (1 - tool.truth(first)).tolist()
    event = tool.annotate(first, [{"mask": changed}], annotation_id=1)
    play.webhook("ANNOTATION_UPDATED", event)
    del tool.all_annotations[2][4]
    play.webhook("ANNOTATIONS_DELETED", {"annotations": [{"id": 4}]})
    _label(play, _head(play, 1)[0], annotator="bob")
    tool.add_image(5)
    play.webhook("TASKS_CREATED", {}, "1.100")
    results = [{"mask": tool.files[5][1].tolist()}, {"box": [0, 32, 32, 32]}]
    whole = tool.annotate(5, results, project_id=1, annotator="ann")
    play.webhook("ANNOTATION_CREATED", whole, "1.100")


def _start_training(play: Play) -> None:
    """A label without a webhook, which the reading before the training finds."""
    _label(play, _head(play, 1)[0], is_heard=False)
    assert play.learner is not None
    play.learner.request_training("1.100")


# ... and in place


def in_place_play() -> tuple[AnnotatedTool, list[Scene]]:
    """An annotator on whole images with suggested regions."""
    return AnnotatedTool(3), [_first_images, _new_image, _later, _later]


def _label_image(play: Play, task_id: int, regions: Sequence[Region]) -> None:
    boxes = [{"box": [each.row, each.col, each.height, each.width]} for each in regions]
    results = [{"mask": play.tool.files[task_id][1].tolist()}, *boxes]
    event = play.tool.annotate(task_id, results, project_id=1)
    play.webhook("ANNOTATION_CREATED", event, "1.100")


def _first_images(play: Play) -> None:
    suggested = play.tool.image_predictions
    if len(suggested) < 2:
        raise LoopStopped(f"{len(suggested)} images have suggestions, need 2")
    for each in suggested[:2]:
        _label_image(play, each.task_id, [region.region for region in each.regions])


def _new_image(play: Play) -> None:
    """Annotated before anybody has read it, and without a word."""
    play.tool.add_image(4)
    results = [{"mask": play.tool.files[4][1].tolist()}]
    play.tool.annotate(4, results, project_id=1, annotator="bob")
    play.clock.skip(FIVE_MINUTES_S)


PLAYS = {"crops": crops_play, "in-place": in_place_play}


@contextmanager
def taken_up(
    boundary: Boundary, folder: Path, mode: str, scenes: Sequence[Scene], injector: Injector
) -> Iterator[Play]:
    """A play on a copy of what was kept; the store is not open yet."""
    shutil.copytree(boundary.folder, folder)
    clock = Clock()
    clock.skipped = boundary.skipped
    play = Play(folder, copy.deepcopy(boundary.tool), mode, scenes, injector, clock, boundary.scene)
    with clock.installed():
        try:
            yield play
        finally:
            play.end()
            shutil.rmtree(folder)
