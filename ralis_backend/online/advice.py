"""What versions score on held-out regions -> how sure that is, and one sentence: go on or stop?

Images are what intervals are taken over: regions of one image resemble each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ralis_backend.core.intervals import bootstrap_draws, bootstrap_interval
from ralis_backend.core.metrics import mean_iou_of_present
from ralis_backend.online.further import ALL_LABELS, AWAITED, CONTINUED, NOT_IN_USE
from ralis_backend.online.store.tables import Version

FEW_REGIONS = 10
FEW_IMAGES = 3
"""With fewer held out than either, a score says more of them than of the pool."""
SMALL_GAIN = 0.01
"""Of mIoU in a round of labels; two rounds below it in a row and labels bring little."""
MOST_TO_STOP = 0.04
"""Of mIoU in the last two rounds together: where their 95 % intervals reach further, they may have
been bad luck."""
IMAGES_TO_STOP = 5
"""With fewer the intervals are too narrow to say that labels bring little, see `core/intervals`."""
LABELLED_REGIONS = "labelled_regions"
"""Of a version's metrics: painted regions of the project when it was trained."""
NEWEST_REGION = "newest_region_id"
"""Of a version's metrics: the oldest label of the region that was labelled last. Newer paint on a
region does not change it; their number may fall, where annotations are deleted."""
NEW_REGIONS = "new_regions"
"""Of a version's metrics: painted regions that its parent knew no label of."""
_NUM_BOOTSTRAPS = 500


def held_out_metrics(
    before: np.ndarray | None,
    after: np.ndarray | None,
    seed: int = 0,
    background: int | None = None,
) -> dict[str, Any]:
    """How sure a version's mIoU is, and its gain over an earlier one.

    Args:
        before: (N, C, C) int64 confusion matrix of each held-out image under the earlier version;
            None if that has learned nothing.
        after: likewise under the new version; None if nothing is held out.
        seed: of the bootstrap.
        background: index of the class that unpainted pixels get, which is left out of the mean
            unless there is nothing else; None: there is none.

    Returns:
        JSON values: `validation_images`; `validation_interval`, 95 %, [low, high] in [0, 1];
        `validation_gain`, [value, low, high]. What is not defined is left out.
    """
    if after is None or np.isnan(mean_iou_of_present(after.sum(axis=0))):
        return {}
    background = _left_out(after, background)
    draws = bootstrap_draws(len(after), np.random.default_rng(seed), _NUM_BOOTSTRAPS)
    scores = _scores(after, draws, background)
    metrics: dict[str, Any] = {
        "validation_images": len(after),
        "validation_interval": _interval(scores, len(after)),
    }
    if before is not None:
        new, old = (mean_iou_of_present(it.sum(axis=0), background) for it in (after, before))
        gain = new - old
        interval = _interval(scores - _scores(before, draws, background), len(after))
        metrics["validation_gain"] = [round(gain, 4), *interval]
    return metrics


def held_out_score(matrices: np.ndarray, background: int | None = None) -> float:
    """What a version is judged by: mean IoU without the background, if anything else is shown.

    Args:
        matrices: (N, C, C) int64 confusion matrix of each held-out image; at least one.
        background: as in `held_out_metrics`.

    Returns:
        In [0, 1]; NaN where no pixel is labelled.
    """
    return mean_iou_of_present(matrices.sum(axis=0), _left_out(matrices, background))


def gain_over(
    before: np.ndarray, after: np.ndarray, seed: int = 0, background: int | None = None
) -> tuple[float, float]:
    """By how much a version scores more than another one, and the standard error of that.

    The error is that of bootstrap draws of images, the same for both; NaN of a single image.

    Args:
        before: (N, C, C) int64 confusion matrices under the other version.
        after: under this one, of the same images.
        seed: of the bootstrap.
        background: as in `held_out_metrics`.
    """
    background = _left_out(after, background)
    draws = bootstrap_draws(len(after), np.random.default_rng(seed), _NUM_BOOTSTRAPS)
    differences = _scores(after, draws, background) - _scores(before, draws, background)
    new, old = (mean_iou_of_present(it.sum(axis=0), background) for it in (after, before))
    return new - old, float(np.nanstd(differences)) if len(after) > 1 else float("nan")


def _left_out(matrices: np.ndarray, background: int | None) -> int | None:
    """The background, unless there is nothing else to judge by."""
    if background is None or np.isnan(mean_iou_of_present(matrices.sum(axis=0), background)):
        return None
    return background


def built_on(versions: Sequence[Version], number: int) -> list[Mapping[str, Any]]:
    """The metrics of a trained version and of those that it was built on, oldest first.

    A refused or abandoned version is not among them: what its round gained is part of the gain of
    the version that was trained next.
    """
    by_number = {version.number: version for version in versions}
    chain: list[Mapping[str, Any]] = []
    version = by_number.get(number)
    while version is not None and "steps" in version.metrics:
        chain.insert(0, version.metrics)
        version = None if version.parent is None else by_number.get(version.parent)
    return chain


def refused_since(versions: Sequence[Version], number: int) -> list[Mapping[str, Any]]:
    """The metrics of the versions that were trained from the one in use and refused, oldest first.

    Those that had learned from no region that is new to it are left out: they say nothing of
    labels. Nor do those that were kept aside, see `unjudged_since`.
    """
    return [it for it in _trained_in_vain(versions, number) if NOT_IN_USE not in it]


def unjudged_since(versions: Sequence[Version], number: int) -> Mapping[str, Any] | None:
    """The metrics of the newest version that nothing could judge; None if its labels were judged.

    That is one which was trained from the version in use, and has learned from a region that is new
    to it and to every version that was refused since.
    """
    found = _trained_in_vain(versions, number)
    judged = [it for it in found if NOT_IN_USE not in it]
    unjudged = [it for it in found if NOT_IN_USE in it]
    if unjudged and all(_knows_more_regions(unjudged[-1], it) for it in judged):
        return unjudged[-1]
    return None


def _trained_in_vain(versions: Sequence[Version], number: int) -> list[Mapping[str, Any]]:
    """The metrics of those with more regions than the version in use that did not replace it."""
    in_use = next((it.metrics for it in versions if it.number == number), {})
    return [
        it.metrics
        for it in versions
        if it.parent == number
        and it.number > number
        and not it.is_accepted
        and "steps" in it.metrics
        and ALL_LABELS not in it.metrics
        and _knows_more_regions(it.metrics, in_use)
    ]


def of_rounds(trained: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The metrics of the version that says what each round of labels gained.

    What comes of continued training stands for its round: its gain is that of the round's labels.
    What was trained again on the same labels is no round; it stands for theirs as long as nothing
    has judged those before it.
    """
    rounds: list[Mapping[str, Any]] = []
    for metrics in trained:
        if CONTINUED in metrics or (rounds and _is_late(metrics, rounds[-1])):
            rounds = [*rounds[:-1], metrics]
        elif not rounds or _knows_more_regions(metrics, rounds[-1]):
            rounds.append(metrics)
    return rounds


def _is_late(metrics: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether a version of the same labels comes after one that nothing has judged."""
    is_judged = AWAITED not in before and score_of(before) is not None
    return not is_judged and not _knows_more_regions(metrics, before)


def round_of(versions: Sequence[Version], version: Version) -> Version:
    """The version that the round of labels made of which another one comes.

    That is the one that it, or what it goes on from, was trained again from with the same labels.
    Continued training notes it.
    """
    by_number = {each.number: each for each in versions}
    while CONTINUED not in version.metrics:
        parent = None if version.parent is None else by_number.get(version.parent)
        if parent is None or "steps" not in parent.metrics:
            break
        if _knows_more_regions(version.metrics, parent.metrics):
            break
        version = parent
    return version


def _knows_more_regions(metrics: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether a version has learned from a region that another one knew no label of.

    A skip is no region, and another person's paint on the same region no new one.
    """
    newest = before.get("newest_label_id")
    if newest is not None and NEWEST_REGION in metrics:
        return bool(metrics[NEWEST_REGION] > newest)
    if newest is not None and newest == metrics.get("newest_label_id"):
        return False
    return LABELLED_REGIONS not in metrics or _num_more(metrics, before) > 0


def _num_more(metrics: Mapping[str, Any], before: Mapping[str, Any]) -> int:
    """By how many labelled regions a version knew more; what is not known of either counts as 1."""
    if LABELLED_REGIONS not in metrics or LABELLED_REGIONS not in before:
        return 1
    return int(metrics[LABELLED_REGIONS] - before[LABELLED_REGIONS])


def advice_on(versions: Sequence[Version], number: int) -> str:
    """`advice` on a project's versions, of which the one with this number is in use."""
    return advice(
        built_on(versions, number),
        refused_since(versions, number),
        unjudged_since(versions, number),
    )


def advice(
    trained: Sequence[Mapping[str, Any]],
    refused: Sequence[Mapping[str, Any]] = (),
    unjudged: Mapping[str, Any] | None = None,
) -> str:
    """Whether to label on, in one sentence.

    Args:
        trained: the metrics of the version in use and those before it, see `built_on`.
        refused: of those that were trained from it in vain, see `refused_since`.
        unjudged: of the one that was trained from it and not judged yet, see `unjudged_since`.
    """
    in_use = trained[-1] if trained else {}
    trained = of_rounds(trained)
    if not trained:
        return "Label on: nothing has been trained yet."
    newest = trained[-1]
    regions, images = newest.get("validation_regions", 0), newest.get("validation_images", 0)
    if AWAITED in newest:
        return (
            f"Label on: {regions + newest[AWAITED]} regions are held out, of which {regions} can "
            "be read now, so nobody can tell how good the model is."
        )
    if score_of(newest) is None or not regions:
        return (
            "Label on: no painted region is held out yet, so nobody can tell how good the model "
            "is (every fifth labelled image is held out)."
        )
    held_out = f"{_counted(regions, 'held-out region')} in {_counted(images, 'image')}"
    if regions < FEW_REGIONS or images < FEW_IMAGES:
        return f"Label on: {held_out} are too few to tell whether more labels help."
    if unjudged is not None:
        return (
            f"Label another round: {_new_regions(in_use, unjudged)} labelled since are not judged "
            "yet: of what is held out too little can be read."
        )
    if refused:
        return _after_refusals(in_use, refused, held_out)
    gain = newest.get("validation_gain")
    if gain is None:
        return f"Label on: one version was measured on {held_out}, and a gain takes two."
    said = f"the last round gained {_points(gain)} points of mIoU on {held_out}"
    if gain[1] > 0 and gain[0] >= SMALL_GAIN:
        return f"Label on: {said}."
    if gain[0] >= SMALL_GAIN or not _was_small(trained[:-1]):
        return f"Label another round: {said}, which may be chance."
    most = _most_together(trained[-2]["validation_gain"], gain)
    if images < IMAGES_TO_STOP or most >= MOST_TO_STOP:
        return (
            f"Label another round: {said}, the round before no more than one point either, but "
            f"{_counted(images, 'image')} cannot tell: together it may be up to "
            f"{100 * most:.1f} points."
        )
    return (
        f"You may stop: {said}, the round before no more than one point either{_weakest(newest)}."
    )


def _after_refusals(
    in_use: Mapping[str, Any], refused: Sequence[Mapping[str, Any]], held_out: str
) -> str:
    """Labels since brought nothing so far; that is no measured gain, so that it never says stop."""
    rounds = of_rounds(refused)
    said = (
        f"{_new_regions(in_use, refused[-1])} labelled since did not make it better on {held_out}"
    )
    if len(rounds) == 1:
        return f"Label another round: {said}."
    return (
        f"Label another round: {said}, in {len(rounds)} trainings: look through the newest labels, "
        f"more of the same may bring little{_weakest(in_use)}."
    )


def _new_regions(in_use: Mapping[str, Any], newest: Mapping[str, Any]) -> str:
    """How many regions the version in use does not know, and another one does."""
    num_new = newest.get(NEW_REGIONS)
    if num_new is None and LABELLED_REGIONS in in_use and LABELLED_REGIONS in newest:
        num_new = _num_more(newest, in_use)
    return "the regions" if num_new is None else _counted(num_new, "region")


def score_of(metrics: Mapping[str, Any]) -> float | None:
    """The mIoU that a version is judged by: without the background, where anything else is shown.

    None where nothing is held out.
    """
    sought = metrics.get("validation_foreground_miou")
    score: float | None = metrics.get("validation_miou") if sought is None else sought
    return score


def score_name(metrics: Mapping[str, Any]) -> str:
    """What `score_of` gives, for people."""
    if metrics.get("validation_foreground_miou") is None:
        return "mIoU"
    return f"mIoU without {metrics.get('background', 'background')}"


def held_out_lines(name: str, metrics: Mapping[str, Any]) -> list[str]:
    """What a version scores on what is held out, with how sure that is; empty without a score."""
    score = score_of(metrics)
    if score is None:
        return []
    low, high = metrics.get("validation_interval", (None, None))
    between = "" if low is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    regions = _counted(metrics.get("validation_regions", 0), "held-out region")
    images = metrics.get("validation_images")
    where = regions if images is None else f"{regions} in {_counted(images, 'image')}"
    line = f"{name}: {score_name(metrics)} {100 * score:.1f} %{between} on {where}"
    if gain := metrics.get("validation_gain"):
        line += f", {_points(gain)} points more than before its round"
    lines = [line]
    if classes := _classes(metrics):
        lines.append(f"{name}: IoU in % by class: {classes}")
    if metrics.get("random_slice"):
        lines.append(
            "mIoU counts rare classes as much as frequent ones, on regions that were chosen for "
            "being hard; the share of right pixels on random regions is what the whole pool gets, "
            "and frequent classes rule it: believe mIoU for rare classes, the share for coverage"
        )
    return lines


def _classes(metrics: Mapping[str, Any]) -> str:
    found = metrics.get("validation_iou") or {}
    regions = metrics.get("validation_class_regions") or {}
    return ", ".join(
        f"{name} {'-' if value is None else f'{100 * value:.0f}'}"
        + (f" ({_counted(regions[name], 'region')})" if name in regions else "")
        for name, value in found.items()
    )


def _was_small(earlier: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the round before gained little, on enough to tell."""
    before = earlier[-1] if earlier else {}
    gain = before.get("validation_gain")
    if gain is None or before.get("validation_regions", 0) < FEW_REGIONS:
        return False
    is_enough = before.get("validation_images", 0) >= IMAGES_TO_STOP
    return bool(is_enough and gain[0] < SMALL_GAIN)


def _most_together(before: Sequence[float], newest: Sequence[float]) -> float:
    """Upper bound of the sum of two gains, [value, low, high] each, as if errors were unrelated."""
    beyond = np.hypot(before[2] - before[0], newest[2] - newest[0])
    return float(before[0] + newest[0] + beyond)


def _weakest(metrics: Mapping[str, Any]) -> str:
    found = {
        name: value
        for name, value in (metrics.get("validation_iou") or {}).items()
        if value is not None and name != metrics.get("background")
    }
    if len(found) < 2:
        return ""
    name = min(found, key=lambda each: found[each])
    return f"; if more is needed, the weakest class is {name} with an IoU of {found[name]:.2f}"


def _points(gain: Sequence[float]) -> str:
    value, low, high = (100 * each for each in gain)
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _counted(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def _scores(matrices: np.ndarray, draws: np.ndarray, background: int | None) -> np.ndarray:
    sums = (matrices[each].sum(axis=0) for each in draws)
    return np.array([mean_iou_of_present(it, background) for it in sums])


def _interval(drawn: np.ndarray, num_images: int) -> list[float]:
    known = drawn[~np.isnan(drawn)]
    return [round(float(each), 4) for each in bootstrap_interval(known, num_images)]
