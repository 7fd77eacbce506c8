"""A trained segmenter -> a version: what the gate says of it, its metrics, its weights."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ralis_backend.core.learning.crops import LabelledImage
from ralis_backend.core.learning.evaluation import evaluate, evaluate_each
from ralis_backend.core.machine import is_accelerator_lost
from ralis_backend.core.segmenter import Segmenter
from ralis_backend.core.text import reason_of
from ralis_backend.online.advice import gain_over, held_out_metrics, round_of
from ralis_backend.online.further import ALL_LABELS, AWAITED, CONTINUED, NOT_IN_USE
from ralis_backend.online.learned import learned_metrics, region_metrics
from ralis_backend.online.masks import LabelMasks
from ralis_backend.online.paint_alone import LEARNED_FROM, NOT_YET, kept_off
from ralis_backend.online.random_slice import measured
from ralis_backend.online.segmenters import load_segmenter
from ralis_backend.online.store import Store, StoreError, now
from ralis_backend.online.store.tables import Project, Version
from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.labelled_images import LabelledImages
from ralis_backend.online.worker.promotion import (
    MIN_VALIDATION_REGIONS,
    awaits_images,
    can_judge,
    is_promoted,
    validation_metrics,
)
from ralis_backend.online.worker.training_plan import ImageLabels, TrainingPlan

logger = logging.getLogger(__name__)


def compare(
    segmenters: Sequence[Segmenter], validation: Sequence[LabelledImage]
) -> np.ndarray | None:
    """Confusion matrices of each segmenter on each image that is held out.

    Returns:
        (S, N, C, C) int64; None where nothing of it can be read.
    """
    each = np.array([evaluate_each(segmenters, [image]) for image in validation])
    seen = [matrices for matrices in each if matrices[-1].any()]  # else it cannot be read
    return np.stack(seen, axis=1) if seen else None


@dataclass(frozen=True)
class ContinuedWork:
    """What continued training made a candidate of.

    plan, read: what it learned from, and what of that can be read.
    newest_label_id: of those labels.
    updates, seconds: since the version in use.
    facts: what the objectives want kept, JSON.
    """

    plan: TrainingPlan
    read: LabelledImages
    newest_label_id: int
    updates: int
    seconds: float
    facts: Mapping[str, Any]


class NewVersions:
    """Judges and keeps what was trained."""

    def __init__(self, store: Store, config: WorkerConfig) -> None:
        self._store = store
        self._config = config

    def measure(
        self,
        project: Project,
        version: Version,
        segmenter: Segmenter,
        unseen: Sequence[LabelledImage],
    ) -> None:
        """Score a version on regions of the random slice that are new to it."""
        matrices = [evaluate(segmenter, [image]) for image in unseen]
        matrices = [matrix for matrix in matrices if matrix.any()]
        if matrices:
            seed = self._config.ranking.seed
            scores = measured(np.stack(matrices), seed, project.background_class)
            self._store.versions.change(version.id, metrics={"random_slice": scores})

    def catch_up(
        self,
        project: Project,
        version: Version,
        plan: TrainingPlan,
        read: LabelledImages,
        matrices: np.ndarray | None,
    ) -> None:
        """Score a version that came into use unjudged, where enough is held out now.

        Whatever becomes of the one that was trained from it: its score tells people how good the
        model is, and whether training on can be judged.

        Args:
            project: whose version it is.
            version: the one in use.
            plan: what the next one is trained from.
            read: what of that can be read.
            matrices: (N, C, C) confusion matrices on what is held out; None if it has learned
                nothing, or nothing of that can be read.
        """
        num_held_out = read.num_regions(plan.validation)
        is_known = can_judge(version.metrics.get("validation_regions", 0))
        is_known |= ALL_LABELS in version.metrics  # it has learned from what is held out
        if matrices is None or is_known or not can_judge(num_held_out):
            return
        before_round = round_of(self._store.versions.all(project.id), version).before_round
        sums, background = matrices.sum(axis=0), project.background_class
        scores = {
            "validation_regions": num_held_out,
            **validation_metrics(None, sums, project.class_names, background),
            **self._over(project, before_round, plan, read, matrices),
            **class_regions(read.masks, plan.validation, project.class_names),
        }
        self._store.versions.judged(version.id, scores)
        name = version.name
        logger.info("project %s: %s is measured, which nothing judged", project.tool_id, name)

    def judge(
        self,
        project: Project,
        parent: Version | None,
        plan: TrainingPlan,
        read: LabelledImages,
        before: np.ndarray | None,
        after: np.ndarray | None,
    ) -> tuple[bool, dict[str, Any]]:
        """Whether the gate lets a version pass, and what its metrics say of that and its labels.

        While too little of what is held out can be read it lets none pass, and they say so.

        Args:
            project: whose version it is.
            parent: that it was trained from; None: the first one is.
            plan: what it was trained from.
            read: what of that can be read.
            before: (N, C, C) confusion matrices of the version in use; None if it has learned
                nothing.
            after: of the new one; None if nothing is held out.
        """
        background = project.background_class
        sums = [None if each is None else each.sum(axis=0) for each in (before, after)]
        num_held_out = read.num_regions(plan.validation)
        held_out = read.class_pixels(plan.validation)
        kept = {
            it["name"] for it in project.classes if not it["is_active"] or held_out.get(it["name"])
        }
        left_out = [*plan.left_out, *read.left_out()]
        metrics = {
            "training_regions": read.num_regions(plan.training),
            **learned_metrics(parent, read.class_pixels(plan.training), kept),
            "validation_regions": num_held_out,
            **validation_metrics(sums[0], sums[1], project.class_names, background),
            **held_out_metrics(before, after, self._config.ranking.seed, background),
            **class_regions(read.masks, plan.validation, project.class_names),
            **({"left_out": left_out} if left_out else {}),
            **({LEARNED_FROM: list(plan.besides)} if plan.besides else {}),
            **({NOT_YET: plan.not_yet} if plan.not_yet else {}),
        }
        num_awaited = self._num_out_of_reach(project, plan)
        if why := _untold(parent, num_held_out, num_awaited):
            return False, {**metrics, NOT_IN_USE: why}
        num_unread = sum(it.is_closing for part in plan.held_out for it in part.labels)
        num_unread -= num_held_out
        if awaits_images(num_held_out, num_unread):  # nothing to compare with, or for a day
            metrics[AWAITED] = num_unread
        tolerance = self._config.promotion_tolerance
        return is_promoted(sums[0], sums[1], num_held_out, tolerance, background), metrics

    def _num_out_of_reach(self, project: Project, plan: TrainingPlan) -> int:
        """Regions that are held out and will be readable when their host is back."""
        images = {image.id: image for image in self._store.images.of(project.id)}
        moment = now()
        return sum(
            sum(label.is_closing for label in part.labels)
            for part in plan.held_out
            if part.image.id in images and images[part.image.id].is_out_of_reach(moment)
        )

    def continued(
        self,
        project: Project,
        parent: Version,
        work: ContinuedWork,
        before: np.ndarray,
        after: np.ndarray,
    ) -> Version | None:
        """The version that comes of going on with its parent, not kept yet; None if it is worse.

        Its gain is that of its round of labels: it is taken over the version before them.

        Args:
            project: whose version it is.
            parent: the version in use.
            work: what was done.
            before: (N, C, C) confusion matrices of the version in use on what is held out.
            after: of the new one.
        """
        passes, metrics = self.judge(project, parent, work.plan, work.read, before, after)
        if not passes:
            return None
        seed = self._config.ranking.seed
        over_parent = gain_over(before, after, seed, project.background_class)
        of_round = round_of(self._store.versions.all(project.id), parent)
        version = Version(
            project_id=project.id,
            number=self._store.versions.next_number(project.id),
            parent=parent.number,
            is_accepted=True,
            num_labels=work.plan.num_labels,
            metrics={
                "steps": work.updates,
                **region_metrics(
                    self._store, project, parent, work.newest_label_id, work.plan.num_labels
                ),
                **metrics,
                **work.facts,
                **kept_off(parent.metrics, work.plan.besides),
                "seconds": {"train": round(work.seconds, 2)},
                CONTINUED: {
                    "from": parent.number,
                    "round_version": of_round.round_version,
                    "before_round": of_round.before_round,
                    "gain": [round(each, 4) for each in over_parent],
                },
            },
        )
        self.tell_gain_of_round(project, version, work.plan, work.read, after)
        return version

    def tell_gain_of_round(
        self,
        project: Project,
        version: Version,
        plan: TrainingPlan,
        read: LabelledImages,
        after: np.ndarray | None,
    ) -> None:
        """Have a version's gain be that of its round of labels; none, where that is not known.

        Where it was trained again on the same labels, its parent knows them as well.

        Args:
            project: whose version it is.
            version: as judged, not kept yet.
            plan: what it was trained from.
            read: what of that can be read.
            after: (N, C, C) confusion matrices of it; None if nothing is held out.
        """
        before_round = round_of(self._store.versions.all(project.id), version).before_round
        if after is None or before_round == version.parent:
            return
        metrics = {name: it for name, it in version.metrics.items() if name != "validation_gain"}
        version.metrics = {**metrics, **self._over(project, before_round, plan, read, after)}

    def _over(
        self,
        project: Project,
        before_round: int | None,
        plan: TrainingPlan,
        read: LabelledImages,
        after: np.ndarray,
    ) -> dict[str, Any]:
        """`held_out_metrics`, with the gain over the version before a round if that is known."""
        before = self._before_round(project, before_round, plan, read)
        if before is not None and len(before) != len(after):
            before = None
        seed = self._config.ranking.seed
        return held_out_metrics(before, after, seed, project.background_class)

    def _before_round(
        self, project: Project, number: int | None, plan: TrainingPlan, read: LabelledImages
    ) -> np.ndarray | None:
        """(N, C, C) confusion matrices of the version before a round.

        None if it is gone, or cannot be scored now: no training is lost for want of a gain.
        """
        version = None if number is None else self._store.versions.find(project.id, number)
        if version is None or version.weights_key is None or version.is_dropped:
            return None
        try:
            return self._matrices_of(project, version, read.of(plan.validation))
        except StoreError:
            raise
        except Exception as error:
            if is_accelerator_lost(error):
                raise
            logger.warning(
                "project %s: what was gained over %s is not told: %s",
                project.tool_id,
                version.name,
                reason_of(error),
            )
            return None

    def _matrices_of(
        self, project: Project, version: Version, validation: Sequence[LabelledImage]
    ) -> np.ndarray | None:
        """As `compare`, of one version; None where its weights are lost, too."""
        ranking = self._config.ranking
        usable = load_segmenter(
            self._store, project, version, ranking.spec, seed=ranking.seed, device=ranking.device
        )
        if usable.damage:
            return None
        matrices = compare([usable.segmenter], validation)
        return None if matrices is None else matrices[0]

    def keep(
        self,
        project: Project,
        version: Version,
        segmenter: Segmenter,
        *,
        instead_of: int,
        **added: Any,
    ) -> Version:
        """Store weights and row; the version is in use from now on if it was accepted.

        But for where somebody has gone back to another version meanwhile: that one stays in use.

        Args:
            project: whose version it is.
            version: not stored yet.
            segmenter: its weights.
            instead_of: number of the version that was in use when its training began.
            added: what else is stored with it, see `Versions.add`.
        """
        # A name of its own: a worker that has lost its lease must not write over these.
        name = f"{version.number}-{secrets.token_hex(4)}"
        version.weights_key = f"versions/{project.id}/{name}.safetensors"
        version.created_at = now()
        path = self._store.blobs.path(version.weights_key)
        path.parent.mkdir(parents=True, exist_ok=True)
        segmenter.save(path, {"classes": list(project.class_names), "version": version.name})
        replaced = instead_of if version.is_accepted else None
        stored = self._store.versions.add(version, instead_of=replaced, **added)
        _log_version(project, stored)
        return stored


def _untold(parent: Version | None, num_read: int, num_awaited: int) -> str | None:
    """Why nobody can tell a version from its parent now, though enough is held out for that."""
    has_learned = parent is not None and parent.weights_key is not None
    if not has_learned or not awaits_images(num_read, num_awaited):
        return None
    return (
        f"of the {num_read + num_awaited} regions that are held out {num_read} can be read now, "
        f"expected at least {MIN_VALIDATION_REGIONS} to judge it by; it is trained again when "
        "their images are back, or were away for a day"
    )


def class_regions(
    masks: LabelMasks, parts: Sequence[ImageLabels], class_names: Sequence[str]
) -> dict[str, Any]:
    """In how many held-out regions each class was painted."""
    pixels = [
        ((part.image.id, label.region), masks.pixels(label))
        for part in parts
        for label in masks.readable(part.labels)
    ]
    if not pixels:
        return {}
    counts = {
        name: len({region for region, each in pixels if index < len(each) and each[index]})
        for index, name in enumerate(class_names)
    }
    return {"validation_class_regions": counts}


def _log_version(project: Project, version: Version) -> None:
    metrics = version.metrics
    if ALL_LABELS in metrics:
        regions, name = metrics["training_regions"], version.name
        logger.info("project %s: %s trained on all %d regions", project.tool_id, name, regions)
        return
    kind = "" if metrics.get("validation_foreground_miou") is None else "foreground_"
    miou, before = (metrics.get(f"validation_{kind}miou{when}") for when in ("", "_before"))
    logger.info(
        "project %s: %s trained on %d regions in %.0f s, validation %s %s: %s",
        project.tool_id,
        version.name,
        version.metrics["training_regions"],
        version.metrics["seconds"]["train"],
        "mIoU without background" if kind else "mIoU",
        "unknown (no held-out image can be read)" if miou is None else f"{miou:.3f}",
        _use_text(version, before),
    )


def _use_text(version: Version, before: float | None) -> str:
    if why := version.metrics.get(NOT_IN_USE):
        return f"not used, {why}"
    return "in use" if version.is_accepted else f"not used, {before:.3f} before"
