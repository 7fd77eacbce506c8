"""Plays what is missing of a comparison, and writes what came out."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ralis_backend.core.acquisition import Strategy
from ralis_backend.core.files import write_bytes, write_json
from ralis_backend.offline.benchmark.markdown import machine, report
from ralis_backend.offline.benchmark.plot import draw
from ralis_backend.offline.benchmark.summary import PoolCosts, summary
from ralis_backend.offline.benchmark.workers import Match, Player, play_all
from ralis_backend.simulation.arena import Arena
from ralis_backend.simulation.game import GameRules, all_labels, check, play
from ralis_backend.simulation.oracles import Oracle

logger = logging.getLogger(__name__)

ALL_LABELS = "all-labels"
ALL_LABELS_SEEDS = 3
_WRITTEN_LATER = ("classes", "images")
"""Facts that a folder of an earlier release does not hold, and that are believed to be the same."""
_UNKNOWN_THERE = ("encoder_weights_sha256",)
"""Likewise, which nobody can know; others that are absent are none."""


@dataclass(frozen=True)
class Contest:
    """What every process needs to play; picklable.

    open_arena: gives what is played on.
    find_strategy: gives the strategy of a name.
    rules: of the game.
    out: folder of the results.
    """

    open_arena: Callable[[], Arena[Any]]
    find_strategy: Callable[[str], Strategy | Oracle]
    rules: GameRules
    out: Path

    def player(self) -> Player:
        """Plays a game and writes its file; one torch thread, for the bits depend on it."""
        torch.set_num_threads(1)
        arena = self.open_arena()

        def play_game(match: Match, tell: Callable[[float], None]) -> None:
            path = _path(self.out, match)
            if match.name == ALL_LABELS:
                write_json(path, all_labels(arena, match.seed, self.rules))
                return
            played = play(
                arena,
                self.find_strategy(match.name),
                match.seed,
                self.rules,
                checkpoint=path.with_name(f".{path.name}.playing"),
                on_step=lambda labelled: tell(labelled / self.rules.budgets[-1]),
            )
            own = {"strategy": match.name, "played_by": played["strategy"]}
            write_json(path, played | own)

        return play_game


@dataclass(frozen=True)
class Entrant:
    """A strategy's name, and what a trained policy was made with.

    label_cost: labelled regions that it was trained with; None: an oracle, which knows them all.
    file: the policy's weights; None for a built-in strategy.
    stands_for: the strategy that plays under this name, where a release may make it another one.
    """

    name: str
    label_cost: int | None = 0
    file: Path | None = None
    stands_for: str | None = None


def run(
    contest: Contest,
    entrants: Sequence[Entrant],
    seeds: Sequence[int],
    clicks: Callable[[], np.ndarray],
    *,
    class_names: Sequence[str],
    command: str,
    jobs: int = 1,
    on_progress: Callable[[Match, float], None] = lambda match, share: None,
    on_start: Callable[[Arena[Any], Sequence[Match]], None] = lambda arena, matches: None,
) -> dict[str, Any]:
    """Play what is missing; write `curves.csv`, `curves.png`, `summary.json` and `report.md`.

    A file per match is written as it is done; what is there already is not played again.

    Args:
        contest: on what, by which rules, and where the results go.
        entrants: who plays.
        seeds: each strategy plays each.
        clicks: gives the (R,) clicks that label each region of the pool.
        class_names: of the dataset.
        command: that repeats it, for the report.
        jobs: matches at a time, each in a process of its own.
        on_progress: told the share of a game that is done.
        on_start: told the matches that are missing, before the first is begun.

    Raises:
        ValueError: if the rules do not fit the pool, a name comes twice, or files in `out` are
            of other rules, other data, another version of a policy, or another strategy that a name
            stood for.
    """
    out, rules, arena = contest.out, contest.rules, contest.open_arena()
    check_names([each.name for each in entrants])
    check(rules, arena)
    _check_folder(out, {"config": _plain(asdict(rules)), "arena": _plain(arena.describe())})
    _check_who_plays(out, entrants)
    first = min(seeds)
    matches = [Match(ALL_LABELS, seed) for seed in range(first, first + ALL_LABELS_SEEDS)]
    matches += [Match(each.name, seed) for seed in seeds for each in entrants]
    missing = [match for match in matches if _read(_path(out, match)) is None]
    on_start(arena, missing)
    play_all(contest.player, missing, jobs, on_progress)
    played = {match: json.loads(_path(out, match).read_text()) for match in matches}
    runs = [result for match, result in played.items() if match.name != ALL_LABELS]
    content = summary(
        runs,
        [result["miou"] for match, result in played.items() if match.name == ALL_LABELS],
        arena.name,
        PoolCosts(arena.class_pixels, clicks(), arena.background),
        {each.name: each.label_cost for each in entrants},
    )
    content["config"] = _plain(asdict(rules))
    content["arena"] = _plain(arena.describe())
    content["stands_for"] = {each.name: each.stands_for for each in entrants if each.stands_for}
    content["absent_classes"] = [
        index for index, iou in enumerate(runs[0]["curve"][0]["ious"]) if iou is None
    ]
    write_bytes(out / "curves.csv", curves_csv(runs).encode())
    draw(content, out / "curves.png")
    write_bytes(out / "report.md", report(content, class_names, command, machine()).encode())
    write_json(out / "summary.json", content)
    return content


def curves_csv(runs: Sequence[Mapping[str, Any]]) -> str:
    """A line per strategy, seed and budget."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["strategy", "seed", "regions", "miou"])
    for run in runs:
        for point in run["curve"]:
            writer.writerow([run["strategy"], run["seed"], point["regions"], point["miou"]])
    return text.getvalue()


def _path(out: Path, match: Match) -> Path:
    return out / "runs" / f"{match.name}-{match.seed}.json"


def _read(path: Path) -> Any:
    """What a file holds; None where there is none, or it is damaged and must be made anew."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        logger.warning("%s is damaged; that game is played again", path)
        return None


def _plain(content: Any) -> Any:
    """As JSON gives it back: tuples become lists."""
    return json.loads(json.dumps(content, default=str))


def check_names(names: Sequence[str]) -> None:
    """Raise `ValueError` unless there are names, each once, of strategies."""
    if not names:
        raise ValueError("no strategy is named; give some, as random,entropy")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"strategy '{twice[0]}' is named twice; name each once")
    if ALL_LABELS in names:
        raise ValueError(f"'{ALL_LABELS}' is no strategy, but what all are compared with")


def _check_folder(out: Path, wanted: Mapping[str, Any]) -> None:
    """Write the rules into a new folder; refuse one of other rules."""
    path = out / "rules.json"
    if not path.is_file():
        if any((out / "runs").glob("*.json")):
            raise ValueError(f"{out} holds games, but no rules.json; choose another folder")
        write_json(path, wanted)
        return
    found = _read(path) or {}
    different = [
        _difference(part, key, there, content)
        for part, content in wanted.items()
        for there in [found.get(part, {})]
        for key in {**content, **there}
        if there.get(key) != content.get(key) and (key in there or key not in _WRITTEN_LATER)
    ]
    if different:
        raise ValueError(
            f"{out} was played by other rules; choose another folder with --out ("
            f"{'; '.join(different)})"
        )
    if found != wanted:
        write_json(path, wanted)


def _difference(part: str, key: str, there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    text = f"{part}: {key} is {there.get(key)!r} there, {now.get(key)!r} now"
    if key in _UNKNOWN_THERE and key not in there:
        text += (
            "; earlier releases did not write it: where it was the same, add it to "
            f'"{part}" in rules.json of that folder, and go on'
        )
    return text


def _check_who_plays(out: Path, entrants: Sequence[Entrant]) -> None:
    """Remember each policy's file, and what names stand for; refuse to go on with others."""
    path = out / "policies.json"
    known = _read(path) or {}
    for entrant in entrants:
        if entrant.stands_for is not None:
            _check_stands_for(out, entrant, known)
        if entrant.file is None:
            continue
        digest = hashlib.sha256(entrant.file.read_bytes()).hexdigest()
        if known.setdefault(entrant.name, digest) != digest:
            raise ValueError(
                f"{entrant.file} changed since policy '{entrant.name}' was played in {out}; delete "
                f"{out}/runs/{entrant.name}-*.json and its line in {path}, or choose another folder"
            )
    if known:
        write_json(path, known)


def _check_stands_for(out: Path, entrant: Entrant, known: dict[str, str]) -> None:
    """Remember what a name stands for; refuse games of another strategy under the same name."""
    is_played = any((out / "runs").glob(f"{entrant.name}-*.json"))
    before = known.get(entrant.name, "a strategy that is not named there" if is_played else None)
    if before not in (None, entrant.stands_for):
        raise ValueError(
            f"'{entrant.name}' was {before} when it was played in {out}, and is "
            f"{entrant.stands_for} now; name {entrant.stands_for} instead, or choose another folder"
        )
    known[entrant.name] = str(entrant.stands_for)
