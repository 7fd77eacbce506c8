"""How far a version's training was continued: kept with the version, read by people and worker.

A version that comes of it stands for the same round of labels as the one that it goes on from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ralis_backend.core.learning.course import Course

FURTHER = "further"
"""Of a version's metrics: how far its training was continued, without a better version so far."""
CONTINUED = "continued"
"""Of a version's metrics: that it comes of continued training, and of how much."""
ALL_LABELS = "all_labels"
"""Of a version's metrics: that it has learned from what is held out, too."""
NOT_IN_USE = "not_in_use"
"""Of a version's metrics: why it did not come into use though it was accepted."""
AWAITED = "awaited_regions"
"""Of an accepted version's metrics: how many more held-out regions, once read, can judge it."""
TRIED_WITH = "tried_with"
"""Of a version's metrics that nobody could judge: what was held out when that was tried last."""
CONVERGED = "it has converged"


@dataclass(frozen=True)
class Further:
    """How far the training of a version was continued.

    newest_label_id: of the labels it went on with; what follows is of these where it says so.
    basis: what else tells these labels from others; None: it is not known.
    updates, seconds: since the version came into use.
    seconds_on_labels: since the newest label.
    best_score, best_updates, num_looks: see `Course`, on these labels.
    ended: why it does not go on with these labels; None: it may.
    num_held_out: images that those scores are of; 0: it is not known, and none compares with them.
    checkpoint: where what was learned lies; None: nothing is kept yet.
    best_checkpoint: where the best of it lies; None: that is the version itself.
    facts: what the objectives said at the last look, as a version's metrics have it.
    """

    newest_label_id: int = 0
    updates: int = 0
    seconds: float = 0.0
    seconds_on_labels: float = 0.0
    best_score: float | None = None
    best_updates: int = 0
    num_looks: int = 0
    ended: str | None = None
    checkpoint: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    basis: str | None = None
    num_held_out: int = 0
    best_checkpoint: str | None = None

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> Further:
        """As a version's metrics say; from the start where they say nothing."""
        known = metrics.get(FURTHER) or {}
        names = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in known.items() if name in names})

    @property
    def course(self) -> Course:
        """How the search for a better one stands."""
        return Course(self.updates, self.best_score, self.best_updates, self.num_looks)

    @property
    def files(self) -> set[str]:
        """Where anything is kept."""
        return {it for it in (self.checkpoint, self.best_checkpoint) if it is not None}

    def is_of(self, newest_label_id: int, basis: str | None) -> bool:
        """Whether it went on with these labels, as far as is known."""
        is_same = basis is None or self.basis is None or self.basis == basis
        return is_same and self.newest_label_id == newest_label_id

    def is_over(self, newest_label_id: int, most_s: float, basis: str | None = None) -> bool:
        """Whether there is nothing more to do until labels change, or what counts of them."""
        is_of_these = self.is_of(newest_label_id, basis)
        return is_of_these and (self.ended is not None or self.seconds_on_labels >= most_s)

    def as_metrics(self) -> dict[str, Any]:
        """What a version's metrics keep of it."""
        return {FURTHER: asdict(self)}


def continued_text(metrics: Mapping[str, Any], continued: Mapping[str, Any]) -> str:
    """Of what a version comes that went on with the labels of another one."""
    value, error = (100 * it for it in continued["gain"])
    minutes = metrics.get("seconds", {}).get("train", 0.0) / 60
    return (
        f"trained on from v{continued['from']} for {metrics['steps']} updates in {minutes:.1f} "
        f"min, {value:+.1f} points of mIoU (standard error {error:.1f})"
    )


def not_in_use_text(name: str, why: str) -> str:
    """Why a version that was accepted is not in use, and what to do to have it all the same."""
    return f"{name} is not in use: {why}; `ralis versions --rollback {name}` uses it"


def further_text(version: str, further: Further) -> str | None:
    """How far the training of a version was continued, with no better one yet; None if not."""
    if further.ended is not None and not further.updates:
        return f"{version} is not trained on with these labels: {further.ended}"
    if not further.updates:
        return None
    done = f"{version} was trained on for {further.updates} updates, {further.seconds / 60:.1f} min"
    return f"{done}: {further.ended or 'nothing better that is worth another queue yet'}"
