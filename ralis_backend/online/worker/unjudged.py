"""A version that nobody could judge, since what is held out is away -> when to train it again.

That is when enough of it can be read. Where it was kept out of use, also when nobody waits for the
rest any more.
"""

from __future__ import annotations

from ralis_backend.online.further import TRIED_WITH
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Project
from ralis_backend.online.worker.promotion import awaits_images, can_judge
from ralis_backend.online.worker.stretch import Basis


def is_judging_due(store: Store, project: Project) -> bool:
    """Whether a training would end with a version that is judged, or accepted without.

    Not while all is as it was when a training came to nothing.
    """
    version = store.versions.unjudged(project)
    if version is None:
        return False
    held_out = _held_out(store, project)
    is_due = can_judge(held_out[0]) if version.is_accepted else not awaits_images(*held_out)
    return is_due and version.metrics.get(TRIED_WITH) != held_out


def note_tried(store: Store, project: Project, basis: Basis) -> None:
    """Note, after a training, with what it was tried; nothing where a version was judged.

    Nor where labels are others than `basis`, with which it began: it has not seen those.
    """
    version = store.versions.unjudged(project)
    if version is not None and Basis.of(store, project) == basis:
        store.versions.change(version.id, metrics={TRIED_WITH: _held_out(store, project)})


def _held_out(store: Store, project: Project) -> list[int]:
    """How many regions are held out in images that can be read, and in those of hosts that fail."""
    moment = now()
    found = store.labels.held_out(project.id)
    return [
        sum(count for image, count in found if image.is_readable),
        sum(count for image, count in found if image.is_out_of_reach(moment)),
    ]
