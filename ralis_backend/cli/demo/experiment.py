"""Rounds of labelling, training and judging: the learning curve of the loop as it really runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ralis_backend.cli.demo.changes import change
from ralis_backend.cli.demo.evaluation import Score, score
from ralis_backend.cli.demo.steps import step
from ralis_backend.online.labels import covered, labels_by_image
from ralis_backend.online.report import CurvePoint

if TYPE_CHECKING:
    from rich.console import Console

    from ralis_backend.offline.datasets import Sample
    from ralis_backend.online.store import Store
    from ralis_backend.online.store.tables import Project, Version

POLL_S = 0.5
NUDGE_AFTER_S = 45.0
"""A version that is due but does not begin is asked for, as a person would press the button."""


class Annotator(Protocol):
    """Somebody who labels what is suggested."""

    def label_next(self) -> int:
        """Label the next task; the number of regions in it, 0 if there is no task."""


@dataclass(frozen=True)
class Round:
    """What one round cost and gave; `version` is the one in use after it."""

    number: int
    version: str
    trained: str
    is_accepted: bool
    num_regions: int
    pool_share: float
    validation: Score
    test: Score
    seconds: Mapping[str, float]
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def point(self) -> CurvePoint:
        """The round as a point of the learning curve."""
        return CurvePoint(
            self.version, self.num_regions, self.pool_share, self.validation.miou, self.test.miou
        )


@dataclass
class Experiment:
    """One project that a scripted annotator labels.

    Args:
        store: the backend's store, only read here.
        uid: of the pool project.
        status: asks the backend what the worker does.
        request_training: presses Label Studio's button.
        annotator: labels the suggestions.
        validation: images that versions are judged by.
        test: images that versions are judged by, never used for a decision.
        device: that versions are judged on.
        console: where progress is shown.
        class_names: what the values of the images' masks stand for.
        background: the value that annotators leave unpainted; None: they paint everything.
        timeout_s: how long a version may take.
    """

    store: Store
    uid: str
    status: Callable[[], Mapping[str, Any]]
    request_training: Callable[[], None]
    annotator: Annotator
    validation: Sequence[Sample]
    test: Sequence[Sample]
    device: str
    console: Console
    class_names: Sequence[str]
    background: int | None = None
    timeout_s: float = 1800.0

    def run(self, num_rounds: int, regions_per_round: int) -> list[Round]:
        """Label, wait for the version, judge it; fewer rounds if there is nothing left to label."""
        rounds: list[Round] = []
        for number in range(1, num_rounds + 1):
            done = self._round(number, regions_per_round)
            if done is None:
                self.console.print(f"Round {number}: nothing left to label.")
                break
            before = rounds[-1] if rounds else None
            self.console.print(told(done, before, num_rounds), soft_wrap=True)
            rounds.append(done)
        return rounds

    def _round(self, number: int, num_regions: int) -> Round | None:
        newest = self._newest()
        started = time.monotonic()
        num_labelled = self._label(number, num_regions)
        if not num_labelled:
            return None
        labelled = time.monotonic()
        version = self._wait(number, newest)
        waited = time.monotonic() - labelled
        project = self.store.projects.get(self.uid)
        in_use = self._in_use(project)
        judging = time.monotonic()
        validation, test = self._judge(number, in_use)
        steps = {name: float(value) for name, value in version.metrics.get("seconds", {}).items()}
        seconds = {
            "label": labelled - started,
            "sync": max(0.0, waited - sum(steps.values())),
            **steps,
            "eval": time.monotonic() - judging,
        }
        regions, share = self._labelled_share(project)
        return Round(
            number=number,
            version=in_use.name,
            trained=version.name,
            is_accepted=version.is_accepted,
            num_regions=regions,
            pool_share=share,
            validation=validation,
            test=test,
            seconds={name: round(value, 2) for name, value in seconds.items()},
            training={key: value for key, value in version.metrics.items() if key in _TRAINING},
        )

    def _label(self, number: int, num_regions: int) -> int:
        num_labelled = 0
        text = f"Round {number}: labelling {num_regions} regions"
        with step(self.console, text, num_regions) as shown:
            while num_labelled < num_regions:
                labelled = self.annotator.label_next()
                if not labelled:
                    break
                num_labelled += labelled
                shown.tell(completed=num_labelled)
        return num_labelled

    def _newest(self) -> int:
        versions = self.store.versions.all(self.store.projects.get(self.uid).id)
        return max((version.number for version in versions), default=0)

    def _wait(self, number: int, newest: int) -> Version:
        """Until a newer version than `newest` has been trained and its suggestions are out."""
        deadline = time.monotonic() + self.timeout_s
        idle_since = time.monotonic()
        with step(self.console, f"Round {number}: waiting for the worker", 100) as shown:
            while time.monotonic() < deadline:
                version = self._finished(newest)
                if version is not None:
                    return version
                status = self.status()
                shown.tell(f"Round {number}: {describe(status)}", float(status.get("percent", 0)))
                if status.get("state", "idle") != "idle":
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > NUDGE_AFTER_S and self._newest() == newest:
                    self.request_training()
                    idle_since = time.monotonic()
                time.sleep(POLL_S)
        raise RuntimeError(
            f"no new version within {self.timeout_s:.0f} s; the backend says {dict(self.status())}"
        )

    def _finished(self, newest: int) -> Version | None:
        project = self.store.projects.get(self.uid)
        versions = [v for v in self.store.versions.all(project.id) if v.number > newest]
        is_idle = project.progress.get("state", "idle") == "idle"
        is_published = project.published_version == project.current_version
        has_events = self.store.events.has_unread(project)
        if versions and is_idle and is_published and not has_events:
            return versions[-1]
        return None

    def _in_use(self, project: Project) -> Version:
        version = self.store.versions.find(project.id, project.current_version)
        if version is None:
            raise RuntimeError(f"project {self.uid} has no version in use; see the backend's log")
        return version

    def _judge(self, number: int, version: Version) -> tuple[Score, Score]:
        from ralis_backend.core.segmenter import load

        if version.weights_key is None:
            raise RuntimeError(f"{version.name} of project {self.uid} was never trained")
        segmenter = load(self.store.blobs.path(version.weights_key), self.device)
        total = len(self.validation) + len(self.test)
        known = self.store.projects.get(self.uid).class_names
        values = [self.class_names.index(name) for name in known]
        done = count(1)
        with step(self.console, f"Round {number}: judging {version.name}", total or 1) as shown:
            scores = [
                score(
                    segmenter,
                    samples,
                    lambda: shown.tell(completed=next(done)),
                    values,
                    self.background,
                )
                for samples in (self.validation, self.test)
            ]
        return scores[0], scores[1]

    def _labelled_share(self, project: Project) -> tuple[int, float]:
        labels = [label for label in self.store.labels.of(project.id) if not label.is_skipped]
        by_image = labels_by_image(labels)
        pixels = labelled = 0
        for image in self.store.images.of(project.id):
            if image.size is None:
                continue
            pixels += math.prod(image.size)
            labelled += int(covered(image.size, by_image.get(image.id, [])).sum())
        return len(labels), labelled / max(pixels, 1)


_TRAINING = ("steps", "final_loss", "training_regions", "validation_regions", "validation_miou")


def describe(status: Mapping[str, Any]) -> str:
    """What the worker does, in a few words."""
    state = str(status.get("state", "waiting for the worker"))
    if state == "training":
        loss = status.get("loss")
        parts = [f"training {status.get('training_version', '')}".strip()]
        if "epoch" in status:
            parts.append(f"epoch {float(status['epoch']):.3g}")
        if loss is not None:
            parts.append(f"loss {float(loss):.3f}")
        return ", ".join(parts)
    return {"idle": "waiting for the worker", "ranking": "ranking the pool"}.get(state, state)


def results_json(
    command: Sequence[str],
    settings: Mapping[str, Any],
    class_names: Sequence[str],
    rounds: Sequence[Round],
) -> dict[str, Any]:
    """What `results.json` holds; scores that do not exist are null."""
    return {
        "command": " ".join(command),
        "settings": dict(settings),
        "classes": list(class_names),
        "rounds": [
            {
                "round": done.number,
                "version": done.version,
                "trained_version": done.trained,
                "is_accepted": done.is_accepted,
                "regions": done.num_regions,
                "pool_share": round(done.pool_share, 5),
                "validation": _score_json(done.validation, class_names),
                "test": _score_json(done.test, class_names),
                "seconds": dict(done.seconds),
                "training": dict(done.training),
            }
            for done in rounds
        ],
    }


def _score_json(result: Score, class_names: Sequence[str]) -> dict[str, Any]:
    foreground = result.foreground_miou
    without = {} if foreground is None else {"miou_without_background": _rounded(foreground)}
    return {
        "miou": _rounded(result.miou),
        **without,
        "images": result.num_images,
        "class_iou": {
            name: _rounded(value)
            for name, value in zip(class_names, result.class_ious, strict=False)
        },
    }


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)


def _without_background(result: Score) -> str:
    foreground = result.foreground_miou
    if foreground is None or math.isnan(foreground):
        return ""
    return f" ({100 * foreground:.1f} without background)"


def told(done: Round, before: Round | None, num_rounds: int) -> str:
    """What a round changed, and what comes next.

    Args:
        done: the round.
        before: the one before it; None if it is the first.
        num_rounds: that there are to be.
    """
    new = done.num_regions - (before.num_regions if before else 0)
    scores = [
        f"{name} {change(_miou(old), _miou(now))}{_without_background(now)}"
        for name, now, old in (
            ("validation", done.validation, before.validation if before else None),
            ("test", done.test, before.test if before else None),
        )
        if not math.isnan(now.miou)
    ]
    lines = [
        f"[bold]Round {done.number}: {done.version} is in use[/bold], {done.num_regions} labelled "
        f"regions (+{new}), {100 * done.pool_share:.2f} % of the pool"
    ]
    if not done.is_accepted:
        lines.append(f"{done.trained} was worse on the held-out regions and is not used")
    if scores:
        lines.append(" · ".join(scores))
    lines.append(f"seconds: {', '.join(f'{name} {it:.1f}' for name, it in done.seconds.items())}")
    if done.number < num_rounds:
        lines.append(
            f"next: round {done.number + 1} of {num_rounds}, the regions from which {done.version} "
            "would learn most"
        )
    else:
        lines.append("next: the learning curve, and the labels as a dataset")
    return "\n  ".join(lines)


def _miou(result: Score | None) -> float | None:
    return None if result is None else result.miou
