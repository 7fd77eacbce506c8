"""What `ralis benchmark` shows while it plays, and when it is done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ralis_backend.core.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from ralis_backend.offline.benchmark.workers import Match
    from ralis_backend.simulation.arena import Arena
    from ralis_backend.simulation.game import GameRules


class Display:
    """What is done of all games, what runs, and how long it may take."""

    def __init__(self, console: Console, jobs: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._console, self._jobs = console, jobs
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
            TimeElapsedColumn(),
            console=console,
        )
        self._total: Any = None
        self._num_games = 0
        self._shares: dict[Match, float] = {}
        self._running: dict[Match, Any] = {}
        self._started = time.monotonic()

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, rules: GameRules, arena: Arena[Any], matches: Sequence[Match]) -> None:
        """Say what is missing, and of slow games what they will cost."""
        from ralis_backend.offline.benchmark.run import ALL_LABELS
        from ralis_backend.simulation.full_arena import FullArena

        self._num_games = len(matches)
        self._started = time.monotonic()
        self._total = self._progress.add_task("games", total=len(matches), facts="")
        if matches and isinstance(arena, FullArena):
            of_game, of_all_labels = arena.seconds(rules)
            seconds = sum(of_all_labels if it.name == ALL_LABELS else of_game for it in matches)
            self._console.print(
                f"{len(matches)} games of the full segmenter take about "
                f"{duration(seconds / self._jobs)} with {self._jobs} at a time (two updates and a "
                "look at an image were timed). A stopped run goes on within a game. --updates, "
                "--regions-per-step, --test-images and --image-scale lower the cost."
            )

    def show(self, match: Match, share: float) -> None:
        """Move the bars."""
        self._shares[match] = share
        if match not in self._running:
            self._running[match] = self._progress.add_task(
                printable(f"{match.name}, seed {match.seed}"), total=1, facts=""
            )
        self._progress.update(self._running[match], completed=share)
        done = sum(self._shares.values())
        num_done = sum(each >= 1 for each in self._shares.values())
        seconds = time.monotonic() - self._started
        left = duration(seconds / done * (self._num_games - done)) if done > 0.05 else "..."
        facts = f"{num_done} of {self._num_games} done, {left} left"
        self._progress.update(self._total, completed=done, facts=facts)
        if share >= 1:
            self._progress.remove_task(self._running.pop(match))
            if not self._console.is_terminal:  # a log: bars are only drawn on a terminal
                text = f"{match.name}, seed {match.seed}: {facts}"
                self._console.print(printable(text), markup=False)


def duration(seconds: float) -> str:
    """Hours and minutes."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def print_table(console: Console, content: Mapping[str, Any]) -> None:
    """Scores at each budget, and labels to 96 % of all labels."""
    from rich.markup import escape
    from rich.table import Table

    entries = content["strategies"]
    table = Table("strategy", *(f"{it} regions" for it in content["config"]["budgets"]), "to 96 %")
    for name, entry in entries.items():
        reached = entry["regions_to"]["0.96"]["value"]
        table.add_row(
            escape(printable(name)),
            *(f"{100 * point['miou']:.1f}" for point in entry["curve"]),
            "–" if reached is None else f"{reached:.0f}",
        )
    console.print(table)
    console.print(
        f"Mean of {len(content['seeds'])} seeds; all labels: "
        f"{100 * content['all_labels_miou']:.1f}."
    )
