"""A configuration of trainings for any label set that take a second."""

from __future__ import annotations

from ralis_backend.offline.training.config import EvolutionConfig

CONFIG = EvolutionConfig(
    generations=2, pairs=2, initial_regions=(3, 5), steps=2, regions_per_step=3, pool_size=3,
    updates_per_step=4, initial_updates=6, max_held_out=6, linear_games=2, checkpoint_every=1,
    hidden=3,
)  # fmt: skip
