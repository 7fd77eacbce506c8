"""Predicted masks of a ranked version; one whose file is missing or damaged is predicted again."""

from __future__ import annotations

import logging
from functools import cached_property

import numpy as np

from ralis_backend.core.features import predicted_classes
from ralis_backend.core.segmenter import Segmenter
from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.pictures import Pictures
from ralis_backend.online.segmenters import load_segmenter
from ralis_backend.online.store import Store, StoreError
from ralis_backend.online.store.tables import Image, Project, Ranking, Version
from ralis_backend.online.suggesting import read_mask, to_paint
from ralis_backend.online.tool import Tool, ToolProject, ToolUnavailable
from ralis_backend.online.worker.sync import NOT_ITS_FAULT, tool_task

logger = logging.getLogger(__name__)


class PredictedMasks:
    """The masks that one version predicts in a project's images."""

    def __init__(
        self,
        store: Store,
        tool: Tool,
        pool: ToolProject,
        project: Project,
        version: Version,
        config: RankingConfig,
    ) -> None:
        self._store, self._tool, self._pool = store, tool, pool
        self._project, self._version, self._config = project, version, config

    def of(self, image: Image, ranking: Ranking | None) -> np.ndarray | None:
        """(H, W) uint8, VOID where people see no stroke: on what they leave unpainted.

        None without one, or where it is lost and cannot be predicted again.

        Raises:
            ToolUnavailable: if the tool does not answer.
        """
        mask = self._predicted(image, ranking)
        return None if mask is None else to_paint(mask, self._project)

    def _predicted(self, image: Image, ranking: Ranking | None) -> np.ndarray | None:
        if ranking is None or ranking.mask_key is None:
            return self._of_others(image)
        try:
            return read_mask(self._store, image, ranking)
        except (OSError, ValueError) as error:
            self._warn(image, f"its mask is predicted again: {error}")
        try:
            return self._again(image)
        except NOT_ITS_FAULT:
            raise
        except Exception as error:
            # Annotators begin without a mask; the region is worth the same.
            self._warn(image, f"it cannot be predicted: {error}")
            return None

    def _of_others(self, image: Image) -> np.ndarray | None:
        """Before a version of ours has learned anything: what the owner said to start from."""
        start_from = self._project.start_from
        if not start_from or self._version.number or image.size is None:
            return None
        unread = f"the prediction of {start_from} cannot be read"
        try:
            return self._tool.others_mask(
                self._pool, start_from, image.task_id, self._project.class_names, image.size
            )
        except StoreError:
            raise
        except ToolUnavailable as error:
            self._tool.project(self._pool.id)  # if it is down, all of them are waited for
            self._warn(image, f"{unread}: {error}")
        except Exception as error:
            self._warn(image, f"{unread}: {error}")
        return None

    def _again(self, image: Image) -> np.ndarray | None:
        if self._segmenter is None:
            return None
        pictures = Pictures(self._store, self._project, self._tool.image)
        pixels = pictures.pixels(tool_task(image))
        mask = predicted_classes(self._segmenter, pixels)
        if mask.shape != image.size:
            raise ValueError(f"the image has {mask.shape} pixels now, {image.size} when ranked")
        self._store.rankings.put_mask_again(self._version, image.id, mask)
        return mask

    @cached_property
    def _segmenter(self) -> Segmenter | None:
        """None where the version's own cannot be used: another's masks would only mislead."""
        usable = load_segmenter(
            self._store,
            self._project,
            self._version,
            self._config.spec,
            seed=self._config.seed,
            device=self._config.device,
        )
        return None if usable.damage else usable.segmenter

    def _warn(self, image: Image, message: str) -> None:
        logger.warning("project %s, task %s: %s", self._project.tool_id, image.task_id, message)
