"""Fully labelled datasets and hyper-parameters -> a trained policy for any label set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from ralis_backend.core.policy import AgnosticPolicy
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.training.config import EvolutionConfig
from ralis_backend.offline.training.evolution import evolve
from ralis_backend.offline.training.linear import fit_linear
from ralis_backend.offline.training.sources import regions_of
from ralis_backend.offline.training.trainer import Equipment, Options, Training

RANKERS: dict[str, Callable[..., AgnosticPolicy]] = {"set": evolve, "linear": fit_linear}
"""What ranks -> how it is trained."""


class AnyTrainer:
    """Trains policies for any label set, on scenarios of one or several datasets."""

    takes_several_datasets = True
    splits = ("d_t",)

    def configured(self, config: EvolutionConfig, options: Options) -> EvolutionConfig:
        """The configuration with the options.

        Raises:
            ValueError: if a reward or fidelity is asked for that it cannot learn with.
        """
        if options.reward not in (None, "miou") or options.fidelity not in (None, "fast"):
            raise ValueError("a policy for any label set learns with reward miou and fidelity fast")
        return replace(
            config,
            generations=options.episodes or config.generations,
            does_shuffle_rewards=options.does_shuffle_rewards or config.does_shuffle_rewards,
        )

    def prepare(
        self, config: EvolutionConfig, datasets: Sequence[Dataset], equipment: Equipment
    ) -> Training:
        """Compute the features of each dataset, where they are not cached.

        Raises:
            ValueError: if an image is smaller than a region.
        """
        sources = regions_of(datasets, self.splits[0], config.region_size, equipment)
        return partial(RANKERS[config.ranker], sources, config, device=equipment.device)
