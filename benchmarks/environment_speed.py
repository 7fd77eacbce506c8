"""Seconds per AL step and per episode of the labelling game, in the fast and the full simulation.

Plays random picks with the rules of each preset on a dataset; an episode's time is its reset, its
steps, and the updates of the query network (batch of the preset).

    python benchmarks/environment_speed.py --dataset ../shared/data/camvid \
        --out benchmarks/results/environment_speed.json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ralis_backend.core.files import write_json
from ralis_backend.core.policy import QueryNetwork
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.training.config import PRESETS, TrainingConfig
from ralis_backend.offline.training.open_simulation import open_simulation
from ralis_backend.offline.training.parts import put_together
from ralis_backend.settings import load_settings
from ralis_backend.simulation import Simulation


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path(".cache/points"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--fast-steps", type=int, default=10)
    parser.add_argument("--full-steps", type=int, default=2)
    options = parser.parse_args()
    load_settings()
    dataset = Dataset.open(options.dataset)
    results = {}
    for name, steps in (("fast", options.fast_steps), ("full", options.full_steps)):
        for preset in ("faithful", "repaired") if name == "fast" else ("faithful",):
            config = replace(PRESETS[preset], fidelity=name)
            if name == "full":  # the first segmenter's training is paid once per run
                rules = replace(config.environment, initial_updates=2)
                config = replace(config, environment=rules)
            simulation = open_simulation(dataset, config, options.cache, device=options.device)
            results[f"{name}, {preset}"] = measured(simulation, config, steps, options.device)
            print(json.dumps(results), flush=True)
    facts = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": options.device,
        "load_average": round(os.getloadavg()[0], 1),
    }
    write_json(options.out, {"measured": results} | facts)


def measured(
    simulation: Simulation, config: TrainingConfig, num_steps: int, device: str
) -> dict[str, float]:
    """Seconds of a reset, a step and its updates, and what they make of an episode.

    Args:
        simulation: what is played in.
        config: the rules of the game and of the updates.
        num_steps: how many are measured; their medians count.
        device: where divergences are computed and the query network learns.
    """
    network = QueryNetwork(simulation.num_classes, simulation.num_state_regions)
    parts = put_together(simulation, config, network, device=device)
    environment, buffer = parts.environment, parts.buffer
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    observation, _ = environment.reset(seed=0)
    reset_s = time.perf_counter() - started
    buffer.begin(observation)
    step_s, update_s = [], []
    for _ in range(num_steps):
        picked = rng.integers(
            config.environment.pool_size, size=config.environment.regions_per_step
        )
        started = time.perf_counter()
        observation, _, is_over, _, info = environment.step(picked)
        step_s.append(time.perf_counter() - started)
        buffer.add(picked, info["rewards"], observation, is_over)
        if len(buffer):
            started = time.perf_counter()
            for _ in range(config.dqn.updates_per_step):
                draw = parts.sampler.draw(config.dqn.batch_size, rng)
                parts.dqn.update(buffer.take(draw.slots, draw.pools))
            update_s.append(time.perf_counter() - started)
    rules = config.environment
    steps = (rules.budget - rules.initial_regions) // rules.regions_per_step
    step, update = float(np.median(step_s)), float(np.median(update_s or [0.0]))
    episode = reset_s + steps * (step + update)
    return {
        "reset_s": round(reset_s, 3),
        "step_s": round(step, 3),
        "updates_s": round(update, 3),
        "steps_per_episode": steps,
        "episode_s": round(episode, 2),
        "episodes_per_hour": round(3600 / episode, 1),
    }


if __name__ == "__main__":
    main()
