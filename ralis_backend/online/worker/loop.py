"""The loop: for each project the first step that is due, until none is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ralis_backend.core.machine import is_accelerator_lost
from ralis_backend.core.text import reason_of
from ralis_backend.online.owner import own_name
from ralis_backend.online.store import Store, StoreError, now
from ralis_backend.online.store.attempts import FAILURE, MOST_ATTEMPTS, STEP
from ralis_backend.online.store.leases import LeaseLost
from ralis_backend.online.store.projects import Look
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import NoPool, Tool, ToolError, ToolNotFound
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.housekeeping import Housekeeping
from ralis_backend.online.worker.lease import Fence, Lease, Leaser
from ralis_backend.online.worker.progress import Progress
from ralis_backend.online.worker.pulse import Pulse
from ralis_backend.online.worker.stall import end_process
from ralis_backend.online.worker.standing import Standing
from ralis_backend.online.worker.steps import Kind, Step, all_due, read_state, worker_steps
from ralis_backend.online.worker.sync import Sync
from ralis_backend.online.worker.train import Stopped

logger = logging.getLogger(__name__)

EXPECTED_ERRORS = (ToolError, ValueError, OSError, FloatingPointError)
"""What their message explains; any other error is logged with its traceback."""
FOR_ALL = (ToolError, StoreError)
"""What every step of a project would meet: it rests as a whole, if annotators wait for the step."""
TURN_S = 300.0
"""What is done while nothing else is due stays with a project for so long, if others wait."""
MOST_LOSSES = 7
"""So many times in a row the tool must not know a project: with the pauses, over five minutes."""


class Worker:
    """Advances every project of a store. Several workers may share one store.

    Args:
        store: shared with the web processes and other workers.
        tool: the labelling tool.
        config: how projects are treated.
        end_process: ends this process, saying why, where a step makes no progress.
        adapt: called before each image, training step and the like: the machine may have become
            busier.
    """

    def __init__(
        self,
        store: Store,
        tool: Tool,
        config: WorkerConfig,
        end_process: Callable[[str], None] = end_process,
        adapt: Callable[[], object] = lambda: None,
    ) -> None:
        self._store = store
        self._config = config
        self._end_process = end_process
        self._name = own_name()
        self._adapt = adapt
        self._leaser = Leaser(
            store, self._name, config.lease_s, config.stall_s, self._end_stalled_step
        )
        self._fence = Fence(store)
        self._held = store.guarded(self._fence.guard)
        watched = tool.watched(self._fence.watch)
        self._sync = Sync(self._held, watched, config)
        self._steps = worker_steps(self._held, watched, config)
        self._housekeeping = Housekeeping(store, tool, config)
        self._standing = Standing()
        self._settled: dict[tuple[int, Kind], Look] = {}
        self._idle_turn = (0, float("-inf"))  # whose it is, and since when
        self._running: tuple[Project, Step] | None = None
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; a step in progress ends within a training step or an image.

        On start every project is read as a whole: webhooks may have been lost meanwhile.
        """
        self._stop = stop
        self._store.projects.begin_again()
        with Pulse(self._store, self._name):
            while not stop.is_set():
                if not self._advance_all_or_wait():
                    stop.wait(self._config.poll_s)

    def advance_all(self) -> bool:
        """One step for each project that needs one; True if there was any.

        Those whose annotators have nothing to do come first, and before each step of another one
        they get all that brings tasks. Where nothing was due, an idle step is done for one project.
        """
        is_busy = False
        looks = self._store.projects.looks()
        for look in sorted(looks, key=lambda it: not it.do_annotators_wait):
            if self._stop.is_set():
                break
            if not look.do_annotators_wait and is_busy:
                self._serve_waiting()
            is_busy |= self._advance_alone(look)
        if not is_busy:
            self._be_idle(looks)
        return is_busy

    def _be_idle(self, looks: Sequence[Look]) -> None:
        """An idle step of one project, each for a while in its turn."""
        last, since = self._idle_turn
        is_over = time.monotonic() - since >= TURN_S

        def is_later(look: Look) -> bool:
            return look.id < last or (is_over and look.id == last)

        for look in sorted(looks, key=lambda it: (is_later(it), it.id)):
            if not self._stop.is_set() and self._advance_alone(look, Kind.IDLE):
                if is_over or look.id != last:
                    self._idle_turn = look.id, time.monotonic()
                return

    def _serve_waiting(self) -> None:
        """Step after step that may bring tasks where annotators wait, until none of them is due."""
        is_busy = True
        while is_busy and not self._stop.is_set():
            waiting = [it for it in self._store.projects.looks() if it.do_annotators_wait]
            is_busy = any(self._advance_alone(look, Kind.SERVING) for look in waiting)

    def advance(self, look: Look, kind: Kind = Kind.WORK) -> bool:
        """Do the project's first due step of a kind; True if it was done (so more may be due)."""
        step = self._wanted(look, kind)
        if step is None:
            return False
        with self._leaser.leased(look.id) as lease:
            if lease is None:
                return False
            with self._fence.around(lease):
                project = self._store.projects.by_id(look.id)  # as it is under the lease
                if project.is_deleted or not lease.is_next_to(look.lease):
                    step = self._next(project, kind)
                return step is not None and self._advance_leased(project, lease, step)

    def _wanted(self, look: Look, kind: Kind) -> Step | None:
        """The first step that is due and that this worker may do now."""
        if self._is_resting(look) or self._is_settled(look, kind):
            return None
        if not self._leaser.is_free(look.id, look.lease):
            return None
        due = self._due(self._store.projects.by_id(look.id), kind)
        if not due:
            self._settle(look, kind)
        return self._first_awake(look.id, due)

    def _settle(self, look: Look, kind: Kind) -> None:
        """Nothing is due: whatever failed last was done all the same, or is not needed any more."""
        self._settled[look.id, kind] = look
        failures = self._store.attempts.failures(look.id)
        done = [step.name for step in self._of(kind) if step.name in failures]
        for name in done:
            self._store.attempts.end(look.id, FAILURE, name)
        if done or (look.retry_at is not None and kind is Kind.WORK):
            notes = standing_notes(self._store, look.id)
            self._store.projects.change(look.id, last_error=notes, num_failures=0, retry_at=None)

    def _advance_all_or_wait(self) -> bool:
        """As `advance_all`, with the housekeeping; a database that fails is waited for."""
        try:
            is_busy = self.advance_all()
            self._housekeeping.keep()
        except Exception:
            logger.exception("the worker goes on after an error between two steps")
            return False
        return is_busy

    def _advance_alone(self, look: Look, kind: Kind = Kind.WORK) -> bool:
        """What one project's row or state holds must not stop the others."""
        try:
            return self.advance(look, kind)
        except Exception as error:
            logger.exception("project %s: it could not be looked at", look.uid.partition(".")[0])
            self._try_to_note(look.id, look.num_failures + 1, reason_of(error))
            return False

    def _is_resting(self, look: Look) -> bool:
        """Whether it pauses after a failure; the pause begins when this worker learns of it."""
        if look.retry_at is None:
            return False
        failure = (look.retry_at, look.num_failures)
        rested_s = self._standing.seconds(("rest", look.id), failure)
        return rested_s < pause_after(look.num_failures)

    def _rests_alone(self, project_id: int, step: Step) -> bool:
        """As `_is_resting`, of a step that failed by itself."""
        number = self._store.attempts.count(project_id, FAILURE, step.name)
        rested_s = self._standing.seconds(("rest", project_id, step.name), number)
        return number > 0 and rested_s < pause_after(number)

    def _is_settled(self, look: Look, kind: Kind) -> bool:
        """Whether nothing was due when all that decides it was as it is now."""
        is_known = self._settled.get((look.id, kind)) == look
        return is_known and self._unread_s(look) < self._config.sync_s

    def _unread_s(self, project: Look | Project) -> float:
        """Seconds since the project was last read as a whole, as far as this worker has seen."""
        return self._standing.seconds(("sync", project.id), project.synced_at)

    def _of(self, kind: Kind) -> list[Step]:
        return [step for step in self._steps if step.is_of(kind)]

    def _due(self, project: Project, kind: Kind) -> list[Step]:
        """The steps that are due, in their order; those that rest as well."""
        if project.is_deleted:
            return []
        enough = self._config.ranking.regions_per_round
        state = read_state(self._store, project, self._unread_s(project), enough)
        return all_due(self._of(kind), state, self._config)

    def _next(self, project: Project, kind: Kind) -> Step | None:
        """The first step that is due and does not rest."""
        return self._first_awake(project.id, self._due(project, kind))

    def _first_awake(self, project_id: int, due: Sequence[Step]) -> Step | None:
        return next((step for step in due if not self._rests_alone(project_id, step)), None)

    def _advance_leased(self, project: Project, lease: Lease, step: Step) -> bool:
        self._running = (project, step)
        try:
            return self._run(project, step, lease)
        except LeaseLost as lost:
            logger.warning(
                "project %s, %s: %s; nothing was written", project.tool_id, step.name, lost
            )
            return False
        finally:
            self._running = None

    def _run(self, project: Project, step: Step, lease: Lease) -> bool:
        self._count_attempt(project, step)
        try:
            return self._run_counted(project, step, lease)
        except LeaseLost:
            # Nobody has died of it; what the new holder has counted of its own stays.
            self._store.attempts.take_back(project.id, STEP, step.name)
            raise

    def _run_counted(self, project: Project, step: Step, lease: Lease) -> bool:
        try:
            is_done = self._try(project, step, lease)
        except Exception:  # what has ended the step could not be noted, but it has not died of it
            self._held.attempts.end(project.id, STEP, step.name)
            raise
        self._held.attempts.end(project.id, STEP, step.name)
        return is_done

    def _try(self, project: Project, step: Step, lease: Lease) -> bool:
        """Do a step and note how it ended; whether it was done."""
        try:
            self._do(project, step, lease)
        except Stopped as stopped:
            logger.info("%s; it begins anew later", stopped)
        except NoPool as error:
            self._note_no_pool(project, error)
        except ToolNotFound as error:
            self._note_loss(project, error)
        except Exception as error:
            is_for_all = step.brings_tasks and isinstance(error, FOR_ALL)
            if step.may_rest_alone and not is_for_all:
                self._note_failure_alone(project, step, error)
            else:
                self._note_failure(project, error)
            if is_accelerator_lost(error):
                self._end_process(
                    f"{step.name} of project {project.tool_id} has lost the accelerator, which "
                    "another process can have: it begins anew"
                )
        else:
            self._note_success(project, step)
            return True
        return False

    def _do(self, project: Project, step: Step, lease: Lease) -> None:
        progress = Progress(self._held, project)
        is_needed = self._need_elsewhere(project) if step.is_idle else lambda: False

        def report(values: dict[str, Any]) -> None:
            self._adapt()
            lease.move()
            progress(values)

        def should_stop() -> bool:
            self._adapt()
            lease.move()
            return self._stop.is_set() or lease.is_lost or is_needed()

        step.run(project, report, should_stop)
        progress.end()

    def _need_elsewhere(self, project: Project) -> Callable[[], bool]:
        """Whether another step of any project is due, looked at as often as between two steps."""
        begun = {look.id: look for look in self._store.projects.looks()}.get(project.id)
        if begun is None or self._next(project, Kind.WORK) is not None:
            return lambda: True
        looked_at = time.monotonic()
        is_needed = False

        def look() -> bool:
            nonlocal looked_at, is_needed
            if not is_needed and time.monotonic() - looked_at >= self._config.poll_s:
                is_needed = self._is_needed(begun)
                looked_at = time.monotonic()
            return is_needed

        return look

    def _is_needed(self, begun: Look) -> bool:
        """As `_need_elsewhere`; `begun` is the look of the project that an idle step works on.

        Nothing in a look says that the pause of a step that failed by itself is over.
        """
        looks = {look.id: look for look in self._store.projects.looks()}
        own = looks.pop(begun.id, None)
        if own is None or replace(own, lease=begun.lease) != begun:
            return True
        if self._unread_s(own) >= self._config.sync_s:
            return True
        if self._store.attempts.failures(own.id) and self._is_own_due(own):
            return True
        return any(self._is_wanted_alone(look) for look in looks.values())

    def _is_own_due(self, own: Look) -> bool:
        return self._next(self._store.projects.by_id(own.id), Kind.WORK) is not None

    def _is_wanted_alone(self, look: Look) -> bool:
        """Whether a step is; a project that cannot be looked at is told of when its turn comes."""
        try:
            return self._wanted(look, Kind.WORK) is not None
        except Exception:
            logger.debug("project row %d could not be looked at", look.id, exc_info=True)
            return False

    def _count_attempt(self, project: Project, step: Step) -> None:
        """A step that has ended the worker again and again rests if it does so once more.

        It counts as failed before it begins: nobody could note it afterwards.
        """
        number = self._held.attempts.begin(project.id, STEP, step.name)
        if number < MOST_ATTEMPTS:
            return
        why = (
            f"has ended the worker {number - 1} times in a row (out of memory, a crash, a lost "
            "graphics card, or no progress)"
        )
        if step.may_rest_alone:
            self._note_alone(project, step, f"it {why}")
            return
        pause_s = pause_after(number)
        message = f"{step.name} {why}; it pauses for {pause_s:.0f} s if it does again"
        self._note(project.id, number, message)

    def _end_stalled_step(self) -> None:
        """From the lease's thread: note what hangs, and end the process that it hangs in."""
        project, step = self._running or (None, None)
        if project is None or step is None:
            return
        why = f"made no progress for {self._config.stall_s:.0f} s"
        message = f"{step.name} of project {project.tool_id} {why}"
        try:
            if step.may_rest_alone:
                self._note_alone(project, step, f"it {why}")
            else:
                self._try_to_note(project.id, project.num_failures + 1, message)
        except Exception:
            logger.exception("%s; that could not be noted", message)
        finally:
            self._end_process(message)

    def _note_success(self, project: Project, step: Step) -> None:
        """No error any more, but for what is set aside or left out."""
        if self._held.attempts.count(project.id, FAILURE, step.name):
            self._held.attempts.end(project.id, FAILURE, step.name)
        notes = standing_notes(self._held, project.id)
        row = self._store.projects.by_id(project.id)
        if row.last_error != notes or row.num_failures or row.num_losses or row.retry_at:
            self._held.projects.change(
                project.id, last_error=notes, num_failures=0, num_losses=0, retry_at=None
            )

    def _note_no_pool(self, project: Project, error: NoPool) -> None:
        """Somebody connected a regions project: it is left to its pool, and never taken up."""
        self._held.projects.change(
            project.id,
            is_deleted=True,
            num_losses=0,
            last_error=reason_of(error),
            progress={"state": "idle"},
        )
        logger.error("%s", error)

    def _note_loss(self, project: Project, error: ToolNotFound) -> None:
        """The project is gone; or only something in it, which a full reading repairs."""
        try:
            self._sync.project(project)
        except ToolNotFound as loss:
            self._note_missing(project, loss)
        except Exception as failure:
            self._note_failure(project, failure)
        else:
            self._held.projects.change(project.id, is_sync_requested=True, num_losses=0)
            self._note_failure(project, error)

    def _note_missing(self, project: Project, error: ToolNotFound) -> None:
        """One answer proves nothing: a project is gone when it stays so over minutes."""
        num_losses = project.num_losses + 1
        self._held.projects.change(
            project.id, num_losses=num_losses, is_deleted=num_losses >= MOST_LOSSES
        )
        if num_losses < MOST_LOSSES:
            self._note_failure(project, error, num_losses)
            return
        self._held.projects.change(
            project.id, last_error=reason_of(error), progress={"state": "idle"}
        )
        logger.warning(
            "project %s is gone: %s. Its labels and versions are kept; it is looked for again "
            "every hour.",
            project.tool_id,
            error,
        )

    def _note_failure(
        self, project: Project, error: Exception, num_failures: int | None = None
    ) -> None:
        """Tell the operator, and try again later."""
        number = num_failures or project.num_failures + 1
        logger.error(
            "project %s: %s; next try in %.0f s",
            project.tool_id,
            reason_of(error),
            pause_after(number),
            exc_info=None if isinstance(error, EXPECTED_ERRORS) else error,
        )
        self._try_to_note(project.id, number, reason_of(error))

    def _note_failure_alone(self, project: Project, step: Step, error: Exception) -> None:
        """Tell the operator, and try this step again later; the others go on."""
        why = reason_of(error)
        try:
            number = self._note_alone(project, step, why, progress={"state": "waiting"})
        except StoreError as failure:  # what cannot be noted would be tried again at once
            self._note_failure(project, failure)
            return
        logger.error(
            "project %s: %s failed: %s; next try in %.0f s, all else goes on",
            project.tool_id,
            step.name,
            why,
            pause_after(number),
            exc_info=None if isinstance(error, EXPECTED_ERRORS) else error,
        )

    def _note_alone(self, project: Project, step: Step, why: str, **values: Any) -> int:
        """Have a step rest by itself; how often in a row it has failed."""
        number = self._held.attempts.fail(project.id, step.name, why)
        notes = standing_notes(self._held, project.id)
        self._held.projects.change(project.id, last_error=notes, **values)
        return number

    def _try_to_note(self, project_id: int, num_failures: int, message: str) -> None:
        try:
            self._note(project_id, num_failures, message, progress={"state": "waiting"})
        except Exception:
            # A full disk refuses this too; the labels are safe, and the loop goes on.
            logger.exception("project row %s: the failure could not be noted", project_id)
            self._stop.wait(pause_after(num_failures))

    def _note(self, project_id: int, num_failures: int, message: str, **values: Any) -> None:
        store = self._held if self._running else self._store
        store.projects.change(
            project_id,
            last_error=message,
            num_failures=num_failures,
            retry_at=now() + timedelta(seconds=pause_after(num_failures)),  # for people to read
            **values,
        )


def standing_notes(store: Store, project_id: int) -> str | None:
    """What people should know though all else goes on: what fails, is set aside, or is left out."""
    failed = store.attempts.failures(project_id).values()
    notes = [
        *failed,
        *store.attempts.notes(project_id),
        store.annotations.left_out_note(project_id),
    ]
    return "; ".join(filter(None, notes)) or None


def pause_after(num_failures: int) -> float:
    """Seconds until the next try after so many failures in a row: 5, 10, 20, ... 300."""
    return min(300.0, 5.0 * 2.0 ** min(num_failures - 1, 6))  # 2.0 ** 1024 is an error
