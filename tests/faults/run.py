"""Many faults, in several processes, and what they have led to."""

from __future__ import annotations

import json
import os
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.endure import Case, Outcome, cases, endure
from tests.faults.injection import Injector
from tests.faults.play import PLAYS
from tests.faults.record import Record, record, stage


@dataclass
class Summary:
    """What came of each fault that was tried."""

    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def num_faults(self) -> int:
        """Faults that were tried."""
        return len(self.outcomes)

    @property
    def harmful(self) -> list[Outcome]:
        """Those that a project did not survive unharmed."""
        return [outcome for outcome in self.outcomes if outcome.problems]

    def table(self) -> dict[str, dict[str, int]]:
        """How many were tried, by step and kind."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for outcome in self.outcomes:
            counts[outcome.case.point.step][outcome.case.fault.kind] += 1
        return {step: dict(sorted(kinds.items())) for step, kinds in sorted(counts.items())}

    def text(self) -> str:
        """The harm by step, kind and effect, with the first case of each; then what was noted."""
        lines = [f"{step}: {kinds}" for step, kinds in self.table().items()]
        lines += ["", "Harm:", *self._grouped(lambda outcome: outcome.problems)]
        lines += ["", "Noted:", *self._grouped(lambda outcome: outcome.notes)]
        return "\n".join(lines)

    def _grouped(self, said: Callable[[Outcome], Sequence[str]]) -> list[str]:
        groups: dict[tuple[str, str, str], list[tuple[Case, str]]] = defaultdict(list)
        for outcome in self.outcomes:
            for text in said(outcome)[:1]:
                effect = ":".join(text.split(":")[:2])[:60]
                key = (outcome.case.point.step, outcome.case.fault.kind, effect)
                groups[key].append((outcome.case, text))
        return [
            f"{len(found):5}x {step} {kind}: {found[0][1]}\n       first: {found[0][0]}"
            for (step, kind, _), found in sorted(groups.items())
        ]


def run(
    *,
    every: int,
    seed: int,
    only: Sequence[str] = (),
    name: str = "",
    processes: int = 1,
    limit_s: float = float("inf"),
    is_brief: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Record each play once, then try every `every`-th of its faults and one of each sort.

    Args:
        every: 1 for all.
        seed: which of them.
        only: steps, kinds and modes; what names none of them is left out.
        name: of one case, which is then the only one.
        processes: that share the work.
        limit_s: no fault is begun later.
        is_brief: one of each step and one of each kind will do.
        log: told how far it is.
    """
    deadline = time.monotonic() + limit_s
    with stage() as (root, injector):
        modes = [mode for mode in PLAYS if mode in only] or list(PLAYS)
        records = {mode: record(mode, root / mode, injector) for mode in modes}
        every_case = [each for kept in records.values() for each in cases(kept)]
        wanted = [case for case in every_case if name in ("", case.name) and _is_wanted(case, only)]
        chosen = choose(wanted, every, seed, is_brief=is_brief)
        log(f"seed {seed}: {len(chosen)} faults")
        outcomes = _in_processes(chosen, records, root, injector, processes, deadline, log)
    return Summary(outcomes)


def choose(
    every_case: Sequence[Case], every: int, seed: int, *, is_brief: bool = False
) -> list[Case]:
    """One case of each kind in each step, then every `every`-th of the others, by chance.

    Brief: as many as show each step and each kind.
    """
    shuffled = list(every_case)
    random.Random(seed).shuffle(shuffled)
    firsts, others = [], []
    seen: set[object] = set()
    for case in shuffled:
        step, kind = case.point.step, case.fault.kind
        sorts = {step, kind} if is_brief else {(step, kind)}
        (others if sorts <= seen else firsts).append(case)
        seen |= sorts
    return [*firsts, *others[::every]]


def _is_wanted(case: Case, only: Sequence[str]) -> bool:
    """Whether a case is of the named steps, of the named kinds and of the named modes."""
    groups = (PLAYS, _STEPS)
    for value, names in ((case.mode, groups[0]), (case.point.step, groups[1])):
        asked = [name for name in only if name in names]
        if asked and value not in asked:
            return False
    kinds = [name for name in only if not any(name in names for names in groups)]
    return not kinds or case.fault.kind in kinds


_STEPS = ("loop", "sync", "events", "train", "rank", "publish", "export", "migrate", "tidy")


def _in_processes(
    chosen: Sequence[Case],
    records: dict[str, Record],
    root: Path,
    injector: Injector,
    processes: int,
    deadline: float,
    log: Callable[[str], None],
) -> list[Outcome]:
    if processes == 1:
        return _endure_all(chosen, records, root, injector, deadline, log)
    with tempfile.TemporaryDirectory() as answers:
        children = []
        for index in range(processes):
            child = os.fork()
            if not child:
                _work_in_child(
                    chosen[index::processes], records, root / f"process-{index}", injector,
                    deadline, log if index == 0 else lambda _: None, Path(answers) / str(index),
                )  # fmt: skip
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        return [
            Outcome(case, *said)
            for index in range(processes)
            for case, said in zip(
                chosen[index::processes],
                json.loads((Path(answers) / str(index)).read_text()),
                strict=False,  # time may have been up
            )
        ]


def _work_in_child(
    chosen: Sequence[Case],
    records: dict[str, Record],
    root: Path,
    injector: Injector,
    deadline: float,
    log: Callable[[str], None],
    answer: Path,
) -> None:
    try:
        root.mkdir()
        outcomes = _endure_all(chosen, records, root, injector, deadline, log)
        answer.write_text(json.dumps([[it.problems, it.notes] for it in outcomes]))
        os._exit(0)
    finally:
        os._exit(1)


def _endure_all(
    chosen: Sequence[Case],
    records: dict[str, Record],
    root: Path,
    injector: Injector,
    deadline: float,
    log: Callable[[str], None],
) -> list[Outcome]:
    outcomes = []
    started = time.monotonic()
    for number, case in enumerate(chosen, start=1):
        if time.monotonic() > deadline:
            log(f"time is up after {number - 1} of {len(chosen)}")
            break
        outcomes.append(endure(case, records[case.mode], root, injector))
        if number % 100 == 0:
            log(f"{number} of {len(chosen)} in {time.monotonic() - started:.0f} s")
    return outcomes
