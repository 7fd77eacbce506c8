"""How a wish stands: what was mined for it, how much of that shows the class, who looks.

A version's ranking keeps what it found in its metrics, as `MINING`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ralis_backend.core.policy.registry import MINER
from ralis_backend.core.text import shortened
from ralis_backend.online.labels import RegionLabel
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project, Version, Wish
from ralis_backend.online.store.wishes import REACHED
from ralis_backend.online.wanted import class_pixels, rests_because

logger = logging.getLogger(__name__)

T = TypeVar("T")
MINING = "mining"
MOST_CHARACTERS = 64
"""Of a strategy's name with its class, where it is kept with a region."""
MOST_ROUNDS = 5
"""Of a wish, so many are named in a status; those before are added up."""


@dataclass(frozen=True)
class Sought:
    """What a version has found for the wish that stands.

    strategy: that gave the scores.
    share: of each round that is mined.
    count: mined regions that are still to be labelled; None: until the wish is ended.
    quantiles: (101,) of the scores of what could be suggested.
    """

    wish_id: int
    strategy: str
    share: float
    count: int | None
    quantiles: Sequence[float]


@dataclass(frozen=True)
class Round:
    """Mined regions of one round that were labelled, and how many of them show the class."""

    number: int
    num_labelled: int
    num_hits: int


@dataclass(frozen=True)
class WishStatus:
    """How a wish stands.

    strategy: that looks in the version in use; None: nobody.
    note: why it is another one than wanted, why nobody looks, or why the wish rests.
    rounds: in which mined regions were labelled.
    pixels_before, pixels_now: labelled pixels of the class when the wish began, and now.
    """

    wish: Wish
    strategy: str | None
    note: str | None
    rounds: Sequence[Round]
    pixels_before: int
    pixels_now: int

    @property
    def num_labelled(self) -> int:
        """Mined regions that were labelled."""
        return sum(each.num_labelled for each in self.rounds)

    @property
    def num_hits(self) -> int:
        """Those of them that show the class."""
        return sum(each.num_hits for each in self.rounds)

    def to_json(self) -> dict[str, Any]:
        """For whoever asks the backend."""
        wish = self.wish
        return {
            "class": wish.class_name,
            "count": wish.count,
            "share": wish.share,
            "wanted_strategy": wish.strategy,
            "strategy": self.strategy,
            "note": self.note,
            "labelled": self.num_labelled,
            "hits": self.num_hits,
            "rounds": [
                {"round": each.number, "labelled": each.num_labelled, "hits": each.num_hits}
                for each in self.rounds
            ],
            "pixels_before": self.pixels_before,
            "pixels_now": self.pixels_now,
            "begun_at": wish.begun_at.isoformat(),
            "ended_by": wish.ended_by,
        }


def mined_regions(labels: Sequence[RegionLabel], wish: Wish) -> list[RegionLabel]:
    """The painted regions that were mined for a wish."""
    return [label for label in labels if label.wish_id == wish.id and not label.is_skipped]


def still_wanted(wish: Wish, num_labelled: int) -> int | None:
    """Mined regions that are still to be labelled; None: until the wish is ended."""
    return None if wish.count is None else max(0, wish.count - num_labelled)


def shared(mined: Sequence[T], others: Sequence[T], share: float) -> list[T]:
    """Both in one order: of its first k, `share` are mined, rounded up, while there are any."""
    order: list[T] = []
    num_mined = 0
    for position in range(1, len(mined) + len(others) + 1):
        is_mined = num_mined < math.ceil(share * position - 1e-9)
        if num_mined < len(mined) and (is_mined or len(order) - num_mined == len(others)):
            order.append(mined[num_mined])
            num_mined += 1
        elif len(order) - num_mined < len(others):
            order.append(others[len(order) - num_mined])
    return order


def num_in_share(share: float, total: int, wanted: int | None) -> int:
    """How many of `total` regions are mined, rounded up, and no more than are wanted."""
    count = math.ceil(share * total - 1e-9)
    return count if wanted is None else min(count, wanted)


def followed(store: Store, project: Project) -> Wish | None:
    """The wish that is followed now; None without one, or while it rests."""
    wish = store.wishes.standing(project.id)
    return None if wish is None or rests_because(project, wish) is not None else wish


def has_looked(version: Version | None, wish: Wish | None) -> bool:
    """Whether a version's ranking was made for a wish, whatever it found.

    See also `may_look_again`.
    """
    return wish is None or (version is not None and _found(version).get("wish") == wish.id)


def may_look_again(store: Store, project: Project, version: Version, wish: Wish) -> bool:
    """Whether a class is known now that nobody could look for in a version's ranking.

    A labelled region of it counts where none did, which may be an old one that was deleted; or the
    picture of an example can be read.
    """
    found = _found(version)
    if found.get("wish") != wish.id or found["strategy"] is not None:
        return False
    known = found.get("known") or {"is_shown": False, "unread": []}
    if not known["is_shown"]:
        target = project.class_names.index(wish.class_name)
        if store.labels.class_pixels(project.id, target):
            return True
    return any(store.images.get(image).is_readable for image in known["unread"])


def wish_looked_for(version: Version | None, wish: Wish | None) -> int | None:
    """The wish that is followed, if a version's ranking has regions for it."""
    if wish is None or version is None or not has_looked(version, wish):
        return None
    return None if _found(version)["strategy"] is None else wish.id


def sought(
    store: Store,
    project: Project,
    version: Version | None,
    labels: Sequence[RegionLabel] | None = None,
) -> Sought | None:
    """What of a version's ranking is for the wish that stands; None if nothing is.

    Args:
        store: knows the wish.
        project: whose wish it is.
        version: that has ranked, if any has.
        labels: of the project; None: those that count are looked up.
    """
    wish = followed(store, project)
    if wish is None or version is None or wish_looked_for(version, wish) is None:
        return None
    found = _found(version)
    count = None
    if wish.count is not None:
        mined = store.labels.mined(project.id, wish.id) if labels is None else labels
        count = still_wanted(wish, len(mined_regions(mined, wish)))
    name = shortened(found["strategy"], MOST_CHARACTERS)
    return Sought(wish.id, name, wish.share, count, found["score_quantiles"])


def end_fulfilled(store: Store, project: Project) -> None:
    """End the wish that stands if as much as was wanted is labelled."""
    wish = store.wishes.standing(project.id)
    if wish is None or wish.count is None:
        return
    num_labelled = len(mined_regions(store.labels.mined(project.id, wish.id), wish))
    if num_labelled >= wish.count:
        store.wishes.end(wish.id, REACHED)
        logger.info(
            "project %s: %d mined regions of %r are labelled, as many as were wanted",
            project.tool_id,
            num_labelled,
            wish.class_name,
        )


def wish_status(
    project: Project, version: Version | None, wish: Wish, labels: Sequence[RegionLabel]
) -> WishStatus:
    """How a wish stands.

    Args:
        project: whose wish it is.
        version: in use.
        wish: that stands, or has ended.
        labels: of the project.
    """
    pixels_now = class_pixels(project, labels, wish.class_name)
    return _status(project, version, wish, _rounds(project, wish, labels), pixels_now)


def _status(
    project: Project, version: Version | None, wish: Wish, rounds: Sequence[Round], pixels_now: int
) -> WishStatus:
    found = _found(version) if version is not None and has_looked(version, wish) else {}
    waits = "the next ranking looks for it" if wish.ended_at is None and not found else None
    rests = rests_because(project, wish) if wish.ended_at is None else None
    note = rests or found.get("note") or waits
    return WishStatus(wish, found.get("strategy"), note, rounds, wish.pixels_before, pixels_now)


def shown_wish(store: Store, project: Project) -> WishStatus | None:
    """How the wish stands that people want to hear of: the one that stands, or that was fulfilled.

    As the worker counted it, see `counted`: nobody who asks waits for all labels to be read.
    None without one.
    """
    wish = _newest(store, project)
    if wish is None:
        return None
    version = store.versions.find(project.id, project.current_version)
    figures = project.people.get(MINING) or {}
    is_counted = figures.get("wish") == wish.id
    rounds = [Round(*each) for each in figures["rounds"]] if is_counted else []
    pixels_now = figures["pixels_now"] if is_counted else wish.pixels_before
    return _status(project, version, wish, rounds, pixels_now)


def counted(store: Store, project: Project) -> dict[str, Any]:
    """Figures of the wish that people want to hear of, as JSON; empty without one."""
    wish = _newest(store, project)
    if wish is None:
        return {}
    mined = store.labels.mined(project.id, wish.id)
    rounds = [[it.number, it.num_labelled, it.num_hits] for it in _rounds(project, wish, mined)]
    names = project.class_names
    is_known = wish.class_name in names
    pixels = store.labels.class_pixels(project.id, names.index(wish.class_name)) if is_known else 0
    return {MINING: {"wish": wish.id, "rounds": rounds, "pixels_now": pixels}}


def _newest(store: Store, project: Project) -> Wish | None:
    every = store.wishes.all(project.id)
    if not every or (every[-1].ended_at is not None and every[-1].ended_by != REACHED):
        return None
    return every[-1]


def wish_lines(status: WishStatus) -> list[str]:
    """How a wish stands, as lines for a terminal or a description."""
    wish, labelled = status.wish, status.num_labelled
    wanted = "" if wish.count is None else f" of {wish.count}"
    percent = f" ({100 * status.num_hits / labelled:.0f} %)" if labelled else ""
    wanted_miner = wish.strategy or MINER
    looks = status.strategy or ("nobody yet" if wish.ended_at is None else wanted_miner)
    share = "" if wish.share == 1 else f", in {100 * wish.share:.0f} % of each round"
    ended = "" if wish.ended_by is None else f"; ended: {wish.ended_by}"
    lines = [
        f"{wish.class_name}, by {looks}{share}: {labelled}{wanted} mined regions labelled, "
        f"{status.num_hits} of them show it{percent}{ended}"
    ]
    if status.rounds:
        lines.append(_rounds_text(status.rounds))
    lines.append(
        f"labelled pixels of {wish.class_name}: {status.pixels_before:,} when it began, "
        f"{status.pixels_now:,} now"
    )
    return lines + ([status.note] if status.note else [])


def _rounds_text(rounds: Sequence[Round]) -> str:
    before, newest = rounds[:-MOST_ROUNDS], rounds[-MOST_ROUNDS:]
    texts = [f"round {it.number}: {it.num_hits} of {it.num_labelled}" for it in newest]
    if before:
        hits, labelled = sum(it.num_hits for it in before), sum(it.num_labelled for it in before)
        texts.insert(0, f"rounds before: {hits} of {labelled}")
    return f"hits by round: {', '.join(texts)}"


def _rounds(project: Project, wish: Wish, labels: Sequence[RegionLabel]) -> list[Round]:
    names = project.class_names
    target = names.index(wish.class_name) if wish.class_name in names else len(names)
    found: dict[int, list[bool]] = {}
    for label in mined_regions(labels, wish):
        is_hit = sum(label.pixels[target : target + 1]) > 0
        found.setdefault(label.round or 0, []).append(is_hit)
    return [Round(number, len(each), sum(each)) for number, each in sorted(found.items())]


def _found(version: Version) -> Mapping[str, Any]:
    found: Mapping[str, Any] = version.metrics.get(MINING) or {}
    return found
