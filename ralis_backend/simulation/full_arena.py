"""The labelling game played by the segmenter itself, measured on whole test images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.core.segmenter.registry import weights_facts
from ralis_backend.simulation.arena import background_facts, labels_digest
from ralis_backend.simulation.full import FullSimulation, LabelledSample
from ralis_backend.simulation.game import GameRules

RECIPE = FinetuneConfig(rarity_share=0.0)
"""As the backend trains, but regions are drawn uniformly: only the loss may know of classes."""

_TIMED_UPDATES = 2


class FullArena:
    """See `Arena`; a game takes hours on a CPU.

    Args:
        name: of the dataset.
        pool: images whose regions may be labelled.
        state_set: images that make up the state.
        test_set: images on which segmenters are measured.
        spec: the segmenter.
        region_size: (height, width) in pixels.
        config: how segmenters train; the rules of the game say for how many updates.
        besides: what they learn from besides labels, see `finetune`.
        device: as torch names it.
        facts: about the splits, for `describe`.
        background: index of the class that people leave unpainted; None: there is none.

    Raises:
        ValueError: if a split is empty.
    """

    def __init__(
        self,
        name: str,
        pool: Sequence[LabelledSample],
        state_set: Sequence[LabelledSample],
        test_set: Sequence[LabelledSample],
        spec: SegmenterSpec,
        region_size: tuple[int, int],
        config: FinetuneConfig = RECIPE,
        besides: Sequence[str] = (),
        device: str = "cpu",
        facts: Mapping[str, Any] | None = None,
        background: int | None = None,
    ) -> None:
        self.name, self.background = name, background
        self._splits = (pool, state_set, test_set)
        self._spec, self._region_size = spec, region_size
        self._config, self._besides, self._device = config, tuple(besides), device
        self._measured = self._simulation(test_set)
        self._facts = weights_facts(spec) | dict(facts or {})
        self.class_pixels = self._measured.class_pixels
        self.is_annotated: np.ndarray = self.class_pixels[:, :-1].sum(axis=1) > 0

    def simulation(self) -> FullSimulation:
        """A new segmenter that ranks."""
        return self._simulation(self._splits[2][:1])

    def measure(self, labelled: np.ndarray, num_updates: int, seed: int) -> np.ndarray:
        """See `Arena.measure`; over every pixel of the test images."""
        self._measured.begin(labelled, num_updates, seed)
        return self._measured.evaluate()

    def snapshot(self, simulation: FullSimulation) -> dict[str, torch.Tensor]:
        """What the segmenter has learned."""
        return simulation.segmenter.state()

    def restore(self, simulation: FullSimulation, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what `snapshot` gave."""
        simulation.segmenter.restore(tensors)
        simulation.segmenter.is_pretrained = True  # it has learned: see `finetune`

    def describe(self) -> dict[str, Any]:
        """The facts that a result depends on, as JSON."""
        return {
            "fidelity": "full",
            "dataset": self.name,
            "pool_regions": len(self.class_pixels),
            "pool_labels_sha256": labels_digest(self.class_pixels),
            "test_images": len(self._splits[2]),
            "image_scale": getattr(self._splits[0][0], "scale", 1.0),
            "region_size": list(self._region_size),
            "segmenter": asdict(self._spec),
            "finetune": self._recipe(),
            **background_facts(self.background),
            **self._facts,
        }

    def _recipe(self) -> dict[str, Any]:
        """How segmenters train; of what they learn besides labels, what they do learn."""
        recipe = asdict(self._config)
        unlabelled = recipe.pop("unlabelled")
        if not self._besides:
            return recipe
        how = {"besides": self._besides, "besides_in": "every training", "unlabelled": unlabelled}
        return recipe | how

    def seconds(self, rules: GameRules) -> tuple[float, float]:
        """About how long a game takes, and a measurement with all labels.

        An update and a forward pass are timed, and counted.
        """
        simulation = self.simulation()
        some = np.flatnonzero(self.is_annotated)[:4]
        started = time.perf_counter()
        simulation.begin(some, _TIMED_UPDATES, 0)
        update = (time.perf_counter() - started) / _TIMED_UPDATES
        started = time.perf_counter()
        simulation.evaluate()
        look = time.perf_counter() - started  # at one image
        num_steps = -(-(rules.budgets[-1] - rules.initial_regions) // rules.regions_per_step)
        num_images = len(self._splits[0])
        candidates = min(num_images, rules.regions_per_step * rules.pool_size)
        labelled = min(num_images, rules.budgets[-1] / 2)  # their embeddings are looked up as well
        seen = max(candidates, labelled)
        testing = len(self._splits[2]) * look
        game = (
            rules.initial_updates * update
            + num_steps * (rules.updates_per_step * update + (seen + 1) * look)
            + len(rules.budgets) * (rules.final_updates * update + testing)
        )
        return game, rules.final_updates * update + testing

    def _simulation(self, measured_on: Sequence[LabelledSample]) -> FullSimulation:
        return FullSimulation(
            self._splits[0],
            self._splits[1],
            measured_on,
            self._spec,
            self._region_size,
            first=self._config,
            config=self._config,
            besides=self._besides,
            device=self._device,
            background=self.background,
        )
