"""A fully labelled dataset and hyper-parameters -> a trained RALIS policy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ralis_backend.core.files import write_json
from ralis_backend.core.policy import PolicySpec, QueryNetwork, RalisPolicy
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.core.segmenter.registry import encoder_facts, segmenter_facts
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.point_features import REFERENCE_SPLITS
from ralis_backend.offline.training.config import TrainingConfig
from ralis_backend.offline.training.open_simulation import open_simulation
from ralis_backend.offline.training.parts import put_together
from ralis_backend.offline.training.q_training import Log, QTraining
from ralis_backend.offline.training.rewards import SCORED_CLASSES, find_score
from ralis_backend.offline.training.trainer import (
    Equipment,
    OnProgress,
    Options,
    Training,
    checkpoint_path,
    result_path,
    training_folder,
)
from ralis_backend.simulation import Simulation
from ralis_backend.simulation.arena import background_facts


class RalisTrainer:
    """Trains the policies of the RALIS paper, each for the label set of its dataset."""

    takes_several_datasets = False
    splits = ("d_t", "d_s", "d_r")

    def configured(self, config: TrainingConfig, options: Options) -> TrainingConfig:
        """The configuration with the options.

        Raises:
            ValueError: if there is no such reward or fidelity.
        """
        fidelity = config.fidelity if options.fidelity is None else options.fidelity
        if fidelity not in ("fast", "full"):
            raise ValueError(f"--fidelity {fidelity!r} is unknown; choose fast or full")
        reward = options.reward or config.environment.reward
        find_score(reward)
        return replace(
            config,
            environment=replace(config.environment, reward=reward),
            episodes=options.episodes or config.episodes,
            fidelity=fidelity,  # type: ignore[arg-type]
            does_shuffle_rewards=options.does_shuffle_rewards or config.does_shuffle_rewards,
        )

    def prepare(
        self, config: TrainingConfig, datasets: Sequence[Dataset], equipment: Equipment
    ) -> Training:
        """Read the dataset into the simulation that the policy learns in.

        Raises:
            ValueError: if the dataset does not fit the configuration.
        """
        simulation = open_simulation(
            datasets[0],
            config,
            equipment.cache,
            spec=equipment.spec,
            device=equipment.device,
            report=equipment.report,
        )
        return partial(
            _train_logged,
            datasets[0],
            simulation,
            config,
            segmenter=_segmenter_facts(equipment.spec, datasets[0], config),
            device=equipment.device,
        )


def train(
    dataset: Dataset,
    simulation: Simulation,
    config: TrainingConfig,
    out: Path,
    *,
    seed: int = 0,
    segmenter: Mapping[str, Any] | None = None,
    device: str = "cpu",
    log: Log | None = None,
    on_progress: OnProgress = lambda _: None,
) -> RalisPolicy:
    """Train a policy, and write `OUT.safetensors` and `OUT.json` (settings, curves, versions).

    A run that was interrupted goes on from its last checkpoint in `OUT.training/`, to the bit.

    Args:
        dataset: gives the classes and the counts for the record.
        simulation: the pool and the segmenter, made of the dataset's `d_t`, `d_s` and `d_r`.
        config: hyper-parameters.
        out: path of the policy without a suffix.
        seed: of everything random.
        segmenter: what the simulation's segmenter depends on, for the record, as JSON.
        device: where the query network learns.
        log: told of every step and episode.
        on_progress: likewise, for people.

    Raises:
        ValueError: if the environment's rules do not fit the pool, or the checkpoint another run.
        FloatingPointError: if the loss is not finite.
    """
    spec = _spec(dataset, simulation, config)
    facts = _facts(dataset, simulation, config, seed) | {"segmenter": dict(segmenter or {})}
    with torch.random.fork_rng(devices=[]):  # the initialisers know the global generator only
        torch.default_generator.manual_seed(seed)
        network = QueryNetwork(simulation.num_classes, simulation.num_state_regions)
    parts = put_together(simulation, config, network, device=device)
    training = QTraining(parts, config, seed, checkpoint_path(out), facts)
    training.run(log, on_progress)
    trained = QueryNetwork(len(spec.classes), spec.num_state_regions)
    trained.load_state_dict(training.network_state())
    policy = RalisPolicy(spec, trained)
    policy.save(result_path(out, "safetensors"))
    write_json(result_path(out, "json"), facts | training.results())
    return policy


def _train_logged(
    dataset: Dataset,
    simulation: Simulation,
    config: TrainingConfig,
    out: Path,
    *,
    seed: int,
    segmenter: Mapping[str, Any],
    device: str,
    on_progress: OnProgress,
) -> RalisPolicy:
    """`train`, with a folder for TensorBoard."""
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(str(training_folder(out) / "tensorboard")) as log:
        return train(
            dataset,
            simulation,
            config,
            out,
            seed=seed,
            segmenter=segmenter,
            device=device,
            log=log,
            on_progress=on_progress,
        )


def _spec(dataset: Dataset, simulation: Simulation, config: TrainingConfig) -> PolicySpec:
    rules = config.environment
    return PolicySpec(
        classes=dataset.class_names,
        region_size=config.region_size,
        num_state_regions=simulation.num_state_regions,
        variant=rules.variant,
        unlabelled=rules.unlabelled,
        regions_per_step=rules.regions_per_step,
        pool_size=rules.pool_size,
        training={"dataset": dataset.name, "config": _plain(config)},
    )


def _facts(
    dataset: Dataset, simulation: Simulation, config: TrainingConfig, seed: int
) -> dict[str, Any]:
    """What a training depends on; two runs with the same facts give the same policy."""
    keys = json.dumps({name: list(keys) for name, keys in dataset.splits.items()})
    scale = REFERENCE_SPLITS if config.fidelity == "fast" else ()
    return {
        "dataset": dataset.name,
        "classes": list(dataset.class_names),
        **background_facts(dataset.background),
        "scored_classes": SCORED_CLASSES,
        "splits_sha256": hashlib.sha256(keys.encode()).hexdigest(),
        "files_sha256": dataset.files_digest((*RalisTrainer.splits, *scale)),
        "num_regions": {
            "pool": len(simulation.class_pixels),
            "state_set": simulation.num_state_regions,
        },
        "num_images": {name: len(keys) for name, keys in dataset.splits.items()},
        "seed": seed,
        "config": _plain(config),
    }


def _segmenter_facts(
    spec: SegmenterSpec, dataset: Dataset, config: TrainingConfig
) -> dict[str, Any]:
    """Of the segmenter that policies are trained on: of the fast simulation, the encoder's."""
    if config.fidelity == "fast":
        return encoder_facts(spec)
    return segmenter_facts(spec.for_classes(len(dataset.classes)))


def _plain(config: TrainingConfig) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return content
