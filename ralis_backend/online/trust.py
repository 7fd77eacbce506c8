"""A project's labels -> whether a strategy may rank it: a replay on them, and a policy's drift.

A trained policy proves that it is as good as the best formula; a formula ranks until it is shown to
lose to a random choice.

`replay_project` also serves `ralis simulate`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ralis_backend.core.acquisition import Aimed, PoolState, Strategy, strategy
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.policy.registry import policy_digest
from ralis_backend.core.regions import VOID, Region, grid
from ralis_backend.core.text import reason_of
from ralis_backend.online.choosing import FALLBACK, RARITY, RankingConfig
from ralis_backend.online.labels import (
    RegionLabel,
    labelled_pixels,
    labels_by_image,
    says_something_of,
)
from ralis_backend.online.masks import LabelMasks
from ralis_backend.online.pictures import NOT_ITS_FAULT, Pictures
from ralis_backend.online.report import replay_text
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Image, Project, Version
from ralis_backend.online.tool import ToolTask
from ralis_backend.simulation.mining import MiningRules, check_target, replay_mining
from ralis_backend.simulation.points import PointEncoder, RegionPoints
from ralis_backend.simulation.verdict import (
    BASELINE,
    HEURISTICS,
    ReplayRules,
    TooFewLabels,
    Verdict,
    check_labels,
    is_behind_random,
    lead,
    lead_over_random,
    replay,
    verdict,
)

logger = logging.getLogger(__name__)

MAX_SHARE_OUTSIDE = 0.2
"""Share of inputs outside a policy's ranges of training that is still trusted; there it is 1 %."""
MINED_MARGIN = 0.05
"""Of what there is to find: a miner is trusted if it is shown to find less than this less."""
_IMAGES_FOR_SCALE = 40
_GAMES_AT_LEAST = 4
"""Fewer say nothing sure, however far apart their scores are."""

Stop = Callable[[], None]
"""Raises where the work should end."""


@dataclass(frozen=True)
class Replayed:
    """A replay on a project: scores as `simulation/verdict` gives them, and on what."""

    scores: Mapping[str, np.ndarray]
    num_regions: int
    num_images: int
    seconds: float

    def verdict(self, name: str) -> Verdict:
        """Of one strategy that was played."""
        return verdict(self.scores, name)

    def to_json(self, name: str) -> dict[str, Any]:
        """The verdict on one strategy that was played, and on what it rests."""
        return self.verdict(name).to_json() | {
            "games": len(self.scores[name]),
            "regions": self.num_regions,
            "images": self.num_images,
            "seconds": round(self.seconds, 1),
        }


def judge(
    store: Store,
    image: Callable[[ToolTask], bytes],
    project: Project,
    policy: Strategy,
    state: PoolState,
    candidates: RegionFeatures,
    config: RankingConfig,
    rules: ReplayRules,
    stop: Stop,
) -> dict[str, Any]:
    """Whether `policy` may rank: `verdict`, the numbers behind it, and in `note` why not.

    What goes wrong on the way, other than what `stop` raises, is the verdict `failed`: a gate
    must not end the loop.
    """
    others = (*HEURISTICS, FALLBACK, BASELINE)
    strategies = {policy.name: policy, **{each: strategy(each) for each in others}}
    entry = _begun(policy, config)
    try:
        entry["drift"] = _drift(policy, state, candidates)
        played = replay_project(
            store, image, project, strategies, config, rules, lambda done, total: stop()
        )
    except TooFewLabels as few:
        return entry | {"verdict": "too few labels", "note": str(few)}
    except Exception as error:
        stop()  # being stopped is no failure
        logger.warning("project %s: policy %s: %s", project.tool_id, policy.name, error)
        return entry | {"verdict": "failed", "note": f"it could not be tested: {error}"}
    entry |= played.to_json(policy.name)
    entry["instead"] = BASELINE if is_behind_random(played.scores, FALLBACK) else FALLBACK
    if is_drifted := _is_drifted(entry["drift"]):
        entry["verdict"] = "not trusted"
    if entry["verdict"] != "trusted":
        entry["note"] = _drift_text(entry["drift"]) if is_drifted else replay_text(entry)
    return entry


def may_be_refused(version: Version, formula: Strategy) -> bool:
    """Whether a strategy is a formula that has to be no worse than a random choice.

    Not one of the cold start, nor one that looks for a single class: mIoU is not what they are for.
    """
    is_cold = version.weights_key is None or formula.name == RARITY
    is_compared = formula.name != BASELINE and not isinstance(formula, Aimed)
    return is_compared and not is_cold and not formula.is_trained


def judge_formula(
    store: Store,
    image: Callable[[ToolTask], bytes],
    project: Project,
    formula: Strategy,
    config: RankingConfig,
    rules: ReplayRules,
    stop: Stop,
) -> dict[str, Any]:
    """Whether `formula` may go on ranking: `not trusted` where it is shown to lose to random.

    `instead`, who ranks then: `FALLBACK`, or random where that loses as well. A replay ends with
    the game after which every formula is shown to be ahead. What goes wrong on the way is the
    verdict `failed`, as in `judge`.
    """
    formulas = dict.fromkeys((formula.name, FALLBACK))
    strategies = {each: strategy(each) for each in (FALLBACK, BASELINE)} | {formula.name: formula}
    entry = _begun(formula, config)

    def is_clear(scores: Mapping[str, np.ndarray]) -> bool:
        played = len(scores[BASELINE])
        ahead = (lead_over_random(scores, each).low > 0 for each in formulas)
        return played >= _GAMES_AT_LEAST and all(ahead)

    try:
        played = replay_project(
            store, image, project, strategies, config, rules, lambda done, total: stop(), is_clear
        )
    except TooFewLabels as few:
        return entry | {"verdict": "too few labels", "note": str(few)}
    except Exception as error:
        stop()  # being stopped is no failure
        logger.warning("project %s: %s: %s", project.tool_id, formula.name, error)
        return entry | {"verdict": "failed", "note": f"it could not be tested: {error}"}
    entry |= played.to_json(formula.name) | {"heuristic": None, "over_heuristic": None}
    behind = [each for each in formulas if is_behind_random(played.scores, each)]
    if formula.name not in behind:
        return entry | {"verdict": "trusted"}
    instead = BASELINE if FALLBACK in behind else FALLBACK
    return entry | {"verdict": "not trusted", "instead": instead, "note": replay_text(entry)}


def standing_verdict(
    verdicts: Iterable[dict[str, Any] | None],
    name: str,
    num_labels: int,
    period: int,
    digest: str | None = None,
) -> dict[str, Any] | None:
    """The newest verdict on a policy, if it was decided on labels and a file as they are now.

    Args:
        verdicts: of a project's versions, oldest first; None where nothing was judged.
        name: of the policy.
        num_labels: labelled regions now: no fewer than then, and by less than `period` more.
        period: of them to the next test.
        digest: of the policy's file, see `policy_digest`; verdicts that know of none stand.
    """
    own = [entry for entry in verdicts if entry and entry["policy"] == name]
    # a version that was gone back to is tested after later ones
    last = max(reversed(own), key=lambda entry: str(entry.get("tested_at", "")), default=None)
    if last is None or last["verdict"] not in ("trusted", "not trusted"):
        return None
    is_same = last.get("policy_sha256") in (None, digest)
    return last if is_same and last["labels"] <= num_labels < last["labels"] + period else None


def _begun(policy: Strategy, config: RankingConfig) -> dict[str, Any]:
    """What is known of a verdict before the test: on what, and since when."""
    return {
        "policy": policy.name,
        "policy_sha256": policy_digest(policy.name, config.policies_dir),
        "tested_at": now().isoformat(),
        "drift": None,
        "note": None,
    }


def _drift(policy: Strategy, state: PoolState, candidates: RegionFeatures) -> dict[str, Any] | None:
    drift = policy.drift(state, candidates)
    if drift is None:
        return None
    share = round(float(drift.share_outside), 4)
    found = {"share_outside": share, "worst": list(drift.worst)}
    return found | ({"far": list(drift.far)} if drift.far else {})


def _is_drifted(drift: Mapping[str, Any] | None) -> bool:
    return drift is not None and (
        drift["share_outside"] > MAX_SHARE_OUTSIDE or bool(drift.get("far"))
    )


def _drift_text(drift: Mapping[str, Any]) -> str:
    if far := drift.get("far"):
        return f"this project lies far outside the ranges of its training in {', '.join(far)}"
    return (
        f"{100 * drift['share_outside']:.0f} % of this pool's inputs lie outside the ranges of its "
        f"training, most often {', '.join(drift['worst'])}"
    )


def replay_project(
    store: Store,
    image: Callable[[ToolTask], bytes],
    project: Project,
    strategies: Mapping[str, Strategy],
    config: RankingConfig,
    rules: ReplayRules,
    report: Callable[[int, int], None] = lambda done, total: None,
    is_clear: Callable[[Mapping[str, np.ndarray]], bool] = lambda _: False,
) -> Replayed:
    """Play `strategies` on what is labelled in a project, with the features of its encoder.

    Args:
        store: gives labels and masks.
        image: gives the bytes of a task's image file; asked for labelled images alone.
        project: whose labels are used.
        strategies: by name.
        config: encoder, region size, device and seed.
        rules: of the replay.
        report: told how many curves of how many are done; what it raises ends the replay.
        is_clear: asked after every game whether the scores so far say enough.

    Raises:
        TooFewLabels: saying how many there are, and how many it takes.
        ValueError: if the encoder's weights cannot be had, or no image can be read.
    """
    started = time.monotonic()
    num_curves = rules.num_games * len(strategies)

    def stop() -> None:
        report(0, num_curves)

    labelled = _Labelled(store, image, project, config, rules.max_regions, stop)
    stop()
    encoder, points = _points(project, labelled, strategies, config)
    num_state = max((each.needs.state_regions for each in strategies.values()), default=0)
    scores = replay(
        points,
        strategies,
        rules,
        config.seed,
        state_set=encoder.points(labelled.whole(num_state)) if num_state else None,
        device=config.device,
        report=report,
        is_clear=is_clear,
    )
    num_images = len(np.unique(points.image_index))
    return Replayed(scores, len(points), num_images, time.monotonic() - started)


def judge_miner(
    store: Store,
    image: Callable[[ToolTask], bytes],
    project: Project,
    miner: Strategy,
    rivals: Sequence[Strategy],
    target: int,
    state: PoolState,
    candidates: RegionFeatures,
    config: RankingConfig,
    rules: MiningRules,
    stop: Stop,
) -> dict[str, Any]:
    """Whether a trained miner may look for a class: a replay of the search, and its drift.

    `verdict`; `best`, the rival that found most; `found`, what each found of what there was to
    find, in [0, 1]; and in `note` why not. What goes wrong on the way is the verdict `failed`.

    Args:
        store: gives labels and masks.
        image: gives the bytes of a task's image file.
        project: whose labels are used.
        miner: aimed at the class, as the rivals are.
        rivals: what it is measured against, one at least.
        target: index of the class.
        state: what miners are told of the pool that is to be searched.
        candidates: the regions of it that can be suggested.
        config: encoder, region size, device and seed.
        rules: of the replay.
        stop: raises where the work should end.
    """
    strategies = {each.name: each for each in (miner, *rivals)}
    entry = _begun(miner, config) | {"best": None}
    started = time.monotonic()
    try:
        entry["drift"] = _drift(miner, state, candidates)
        # at the labels first: to encode images takes long, and is for nothing with too few
        labels = _that_count(store, project)
        index = np.array([label.image_id for label in labels], np.int64)
        removed, name = project.removed_classes, project.class_names[target]
        pixels = labelled_pixels(labels, len(project.classes), removed)
        check_target(pixels, index, target, name)
        labelled = _Labelled(
            store, image, project, config, rules.max_regions, stop, lambda *_: None
        )
        _, points = _points(project, labelled, strategies, config)
        found = replay_mining(
            points,
            strategies,
            target,
            rules,
            config.seed,
            class_name=name,
            device=config.device,
            report=lambda done, total: stop(),
        )
    except TooFewLabels as few:
        return entry | {"verdict": "too few labels", "note": str(few)}
    except Exception as error:
        stop()  # being stopped is no failure
        logger.warning("project %s: miner %s: %s", project.tool_id, miner.name, error)
        return entry | {"verdict": "failed", "note": f"it could not be tested: {error}"}
    entry |= _verdict_on_miner(found, miner.name)
    if _is_drifted(entry["drift"]):
        entry |= {"verdict": "not trusted", "note": _drift_text(entry["drift"])}
    return entry | {
        "games": len(found[miner.name]),
        "regions": len(points),
        "images": len(np.unique(points.image_index)),
        "seconds": round(time.monotonic() - started, 1),
    }


def _verdict_on_miner(found: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
    """Trusted if it is shown not to find less by `MINED_MARGIN`, or more, than any rival."""
    leads = {each: lead(found[name] - found[each]) for each in found if each != name}
    best = max(leads, key=lambda each: float(found[each].mean()))
    if any(each.high < 0 for each in leads.values()):
        verdict = "not trusted"
    elif all(each.low > -MINED_MARGIN for each in leads.values()):
        verdict = "trusted"
    else:
        verdict = "too few labels"
    told = ", ".join(
        f"{100 * each.mean:+.0f} [{100 * each.low:+.0f}, {100 * each.high:+.0f}] against {rival}"
        for rival, each in leads.items()
    )
    return {
        "verdict": verdict,
        "best": best,
        "found": {each: round(float(values.mean()), 4) for each, values in found.items()},
        "note": None
        if verdict == "trusted"
        else f"replay on {len(found[name])} games, percent of what there was to find: {told}",
    }


def _points(
    project: Project,
    labelled: _Labelled,
    strategies: Mapping[str, Strategy],
    config: RankingConfig,
) -> tuple[PointEncoder, RegionPoints]:
    """The painted regions as the encoder sees them, with classes as a ranking is told of them."""
    encoder = PointEncoder(config.spec.for_classes(max(1, len(project.classes))), config.device)
    encoder.fit((pixels, regions) for pixels, _, regions in labelled.read(_IMAGES_FOR_SCALE))
    looks_twice = any(each.needs.looks_twice for each in strategies.values())
    points = encoder.points(labelled.read(), looks_twice)
    is_painted = (points.points.labels != VOID).any(dim=1).numpy()
    points = points.take(np.flatnonzero(is_painted))
    return encoder, replace(
        points, background=project.background_class, removed_classes=project.removed_classes
    )


def _that_count(store: Store, project: Project) -> list[RegionLabel]:
    """The labels of regions that count as labelled, with a pixel of a class of the project."""
    removed = project.removed_classes
    labels = store.labels.of(project.id)
    return [it for it in labels if it.is_closing and says_something_of(it, removed)]


class _Labelled:
    """The painted regions of a project, all of one size, at most `max_regions`, image by image."""

    def __init__(
        self,
        store: Store,
        image: Callable[[ToolTask], bytes],
        project: Project,
        config: RankingConfig,
        max_regions: int,
        stop: Stop,
        check: Callable[[int, int], None] = check_labels,
    ) -> None:
        self._stop = stop
        self._unreadable: dict[int, str] = {}  # why, by image
        self._pictures, self._masks = Pictures(store, project, image), LabelMasks(store, project)
        self._project, self._config = project, config
        labels = _that_count(store, project)
        sizes = [(label.region.height, label.region.width) for label in labels]
        size = Counter(sizes).most_common(1)[0][0] if sizes else config.region_size
        self._size, self._labels = size, labels_by_image(labels)
        by_image = labels_by_image(
            [label for label, each in zip(labels, sizes, strict=True) if each == size]
        )
        moment = now()
        images = []
        for row in store.images.of(project.id):
            if row.size is not None and row.may_be_tried(moment):
                inside = [it for it in by_image[row.id] if it.region.is_inside(row.size)]
                by_image[row.id] = inside
                images += [row] if inside else []
        check(sum(len(by_image[row.id]) for row in images), len(images))
        self._images: list[tuple[Image, list[RegionLabel]]] = []
        room = max_regions
        for index in np.random.default_rng(config.seed).permutation(len(images)):
            of_image = by_image[images[index].id][:room]
            room -= len(of_image)
            if of_image:
                self._images.append((images[index], of_image))

    def read(
        self, max_images: int | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray, Sequence[Region]]]:
        """Pixels, mask and labelled regions of each image that can be read.

        Raises:
            ValueError: if none can.
        """
        num_read = 0
        for row, labels in self._images[:max_images]:
            self._stop()
            if row.id in self._unreadable:
                continue
            try:
                pixels = self._pictures.read(row, row.size)
            except NOT_ITS_FAULT:
                raise
            except Exception as error:
                # It is noted with the image; here the others are enough.
                self._unreadable[row.id] = reason_of(error)
                continue
            num_read += 1
            yield pixels, self._mask(row), [label.region for label in labels]
        if not num_read:
            why = next(reversed(self._unreadable.values()), None)
            raise ValueError(
                f"none of {len(self._images)} labelled images could be read, the last one because: "
                f"{why}; `ralis doctor --project {self._project.tool_id}` says more"
            )

    def whole(self, num_regions: int) -> list[tuple[np.ndarray, np.ndarray, Sequence[Region]]]:
        """All regions of as many images as it takes to have `num_regions`.

        Raises:
            TooFewLabels: if there are not as many.
        """
        chosen: list[tuple[np.ndarray, np.ndarray, Sequence[Region]]] = []
        count = 0
        for pixels, mask, _ in self.read():
            regions = grid((mask.shape[0], mask.shape[1]), self._size)
            chosen.append((pixels, mask, regions))
            count += len(regions)
            if count >= num_regions:
                return chosen
        raise TooFewLabels(
            f"the labelled images have {count} regions in all, and the policy looks at a state set "
            f"of {num_regions}; label regions of other images"
        )

    def _mask(self, row: Image) -> np.ndarray:
        if row.size is None:
            raise ValueError(f"task {row.task_id} has labels but no image size")
        return self._masks.whole(row.size, self._labels[row.id])
