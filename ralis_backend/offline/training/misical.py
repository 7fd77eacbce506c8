"""Fully labelled datasets and hyper-parameters -> a trained policy that looks for any class."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import vector_to_parameters

from ralis_backend.core.files import write_json
from ralis_backend.core.policy import MisicalPolicy, MisicalSpec
from ralis_backend.core.policy.misical_inputs import STATE_INPUTS
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.training.any_policy import labelled_regions
from ralis_backend.offline.training.buffer import ReplayBuffer
from ralis_backend.offline.training.config import MisicalConfig
from ralis_backend.offline.training.dqn import DoubleDqn
from ralis_backend.offline.training.mining import MiningEnv, gathered_share
from ralis_backend.offline.training.parts import Parts
from ralis_backend.offline.training.q_training import QTraining
from ralis_backend.offline.training.sampling import PrioritisedSampler
from ralis_backend.offline.training.searches import Search, prepare_searches
from ralis_backend.offline.training.sources import digest, regions_of
from ralis_backend.offline.training.targets import SoftUpdate
from ralis_backend.offline.training.trainer import (
    Equipment,
    OnProgress,
    Options,
    Progress,
    Training,
    checkpoint_path,
    result_path,
)
from ralis_backend.simulation.points import RegionPoints

Heads = list[list[Search]]
"""The searches of each head."""

_EVALUATED_SHARE = 1 / 3
"""So many more heads are prepared, for evaluations."""


class MisicalTrainer:
    """Trains policies that look for one class, on classes of one or several datasets."""

    takes_several_datasets = True
    splits = ("d_t",)

    def configured(self, config: MisicalConfig, options: Options) -> MisicalConfig:
        """The configuration with the options.

        Raises:
            ValueError: if a reward or fidelity is asked for that it cannot learn with.
        """
        if options.reward not in (None, "categorical", "continuous"):
            raise ValueError(
                f"a policy that looks for one class learns with reward categorical or continuous, "
                f"not {options.reward}"
            )
        if options.fidelity not in (None, "fast"):
            raise ValueError("a policy that looks for one class learns with fidelity fast")
        return replace(
            config,
            episodes=options.episodes or config.episodes,
            reward=options.reward or config.reward,
            does_shuffle_rewards=options.does_shuffle_rewards or config.does_shuffle_rewards,
        )

    def prepare(
        self, config: MisicalConfig, datasets: Sequence[Dataset], equipment: Equipment
    ) -> Training:
        """Compute the features of each dataset, where they are not cached.

        Raises:
            ValueError: if an image is smaller than a region.
        """
        sources = regions_of(datasets, self.splits[0], config.region_size, equipment)
        return partial(train_misical, sources, config, device=equipment.device)


def train_misical(
    sources: Mapping[str, RegionPoints],
    config: MisicalConfig,
    out: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    on_progress: OnProgress = lambda _: None,
) -> MisicalPolicy:
    """Train a policy, and write `OUT.safetensors` and `OUT.json` (settings, curves, costs).

    Args:
        sources: labelled regions of each dataset.
        config: how.
        out: the policy's path without a suffix.
        seed: of everything random.
        device: where the network learns.
        on_progress: told of every head that is prepared, and of every step.

    Raises:
        ValueError: if the datasets are too small, or the checkpoint of another training.
        FloatingPointError: if the loss is not finite.
    """
    heads, others = prepared(sources, config, seed, on_progress)
    costs = labelled_regions(sources)
    digests = {name: digest(source) for name, source in sources.items()}
    return learn(
        heads,
        others,
        config,
        out,
        costs,
        digests=digests,
        seed=seed,
        device=device,
        on_progress=on_progress,
    )


def learn(
    heads: Heads,
    others: Heads,
    config: MisicalConfig,
    out: Path,
    costs: Mapping[str, int],
    *,
    digests: Mapping[str, str] | None = None,
    seed: int = 0,
    device: str = "cpu",
    on_progress: OnProgress = lambda _: None,
) -> MisicalPolicy:
    """As `train_misical`, on heads that `prepared` gave.

    Args:
        heads: searches to learn from.
        others: searches to be measured in.
        config: how.
        out: the policy's path without a suffix.
        costs: labelled regions of each dataset.
        digests: of each dataset's regions, by which a checkpoint knows them.
        seed: of everything random.
        device: where the network learns.
        on_progress: told of every step.
    """
    facts = {
        "labelled_regions": dict(costs),
        "datasets": dict(digests or {}),
        "seed": seed,
        "config": json.loads(json.dumps(asdict(config))),
        "searches": sum(map(len, heads)),
    }
    return _LEARNERS[config.architecture](heads, others, config, out, facts, device, on_progress)


def prepared(
    sources: Mapping[str, RegionPoints],
    config: MisicalConfig,
    seed: int,
    on_progress: OnProgress = lambda _: None,
) -> tuple[Heads, Heads]:
    """Searches of heads to learn from, and of a third as many others to be measured in.

    Those of a dataset are the same whatever the other datasets are.
    """
    num_others = max(1, round(_EVALUATED_SHARE * config.num_segmenters))
    counts = [(0, config.num_segmenters), (1, num_others)]
    heads: tuple[Heads, Heads] = ([], [])
    total = len(sources) * sum(count for _, count in counts)
    for name, source in sources.items():
        for part, count in counts:
            rng = np.random.default_rng([seed, 5, part, zlib.crc32(name.encode())])

            def told(done: int, before: int = sum(map(len, heads))) -> None:
                facts = f"head {before + done} of {total} is prepared"
                on_progress(Progress(0, config.episodes, 0.0, facts, 0.0))

            heads[part].extend(prepare_searches(source, config, count, rng, told))
    return heads


def _learn_q(
    heads: Heads,
    others: Heads,
    config: MisicalConfig,
    out: Path,
    facts: dict[str, Any],
    device: str,
    on_progress: OnProgress,
) -> MisicalPolicy:
    """By double Q-learning; an interrupted run goes on from its checkpoint, to the bit."""
    spec = MisicalSpec("mlp", config.hidden)
    parts = put_together(heads, others, config, facts["seed"], device)
    training = QTraining(parts, config, facts["seed"], checkpoint_path(out), facts)
    training.run(on_progress=on_progress)
    policy = MisicalPolicy.untrained(spec, facts["seed"], out.name)
    policy.network.load_state_dict(training.network_state())
    return _written(policy, heads, others, out, facts, training.results())


def put_together(
    heads: Heads, others: Heads, config: MisicalConfig, seed: int, device: str
) -> Parts:
    """The parts of the training by Q-learning.

    Args:
        heads: searches to learn from.
        others: searches to be measured in.
        config: rules and hyper-parameters.
        seed: of the network's first weights.
        device: where it learns.
    """
    learning, environment = config.dqn, MiningEnv(heads, config)
    network = MisicalPolicy.untrained(MisicalSpec("mlp", config.hidden), seed, "first").network
    buffer = ReplayBuffer(
        learning.replay_capacity,
        environment.shapes["state"],
        environment.shapes["actions"],
        num_steps=learning.num_steps,
        discount=learning.discount,
        device=device,
    )
    num_updates = config.episodes * config.num_steps * learning.updates_per_step
    sampler = PrioritisedSampler(
        buffer,
        alpha=config.priority_alpha,
        beta=config.priority_beta,
        num_draws=num_updates // learning.update_every,
    )
    dqn = DoubleDqn(network.to(device), learning, target_rule=SoftUpdate(config.soft_update))
    return Parts(environment, MiningEnv(others, config), dqn, buffer, sampler, device)


def _learn_linear(
    heads: Heads,
    others: Heads,
    config: MisicalConfig,
    out: Path,
    facts: dict[str, Any],
    device: str,
    on_progress: OnProgress,
) -> MisicalPolicy:
    """By ridge regression of the class's standardised share; every search counts the same."""
    policy = MisicalPolicy.untrained(MisicalSpec("linear"), facts["seed"], out.name)
    rng = np.random.default_rng([facts["seed"], 7])
    fitted = fit_linear(
        [search for searches in heads for search in searches],
        config.ridge,
        rng if config.does_shuffle_rewards else None,
    )
    with torch.no_grad():
        vector_to_parameters(torch.from_numpy(fitted).float(), policy.network.parameters())
    results = {"weights": [round(float(it), 5) for it in fitted]}
    return _written(policy, heads, others, out, facts, results)


def fit_linear(
    searches: Sequence[Search], ridge: float, shuffled_by: np.random.Generator | None = None
) -> np.ndarray:
    """(35,) weights that explain the standardised share of the class, by ridge regression.

    Args:
        searches: each counts the same.
        ridge: per region.
        shuffled_by: deals the shares of a search out at random: a placebo.
    """
    size = searches[0].inputs.shape[1]
    gram, moment = ridge * np.eye(size), np.zeros(size)
    for search in searches:
        design, shares = search.inputs.astype(np.float64), search.shares
        if shuffled_by is not None:
            shares = shuffled_by.permutation(shares)
        aim = (shares - shares.mean()) / (shares.std() + 1e-9)
        gram += design.T @ design / len(design) / len(searches)
        moment += design.T @ aim / len(design) / len(searches)
    return np.asarray(np.linalg.solve(gram, moment))


_LEARNERS: dict[str, Callable[..., MisicalPolicy]] = {"mlp": _learn_q, "linear": _learn_linear}


def _written(
    policy: MisicalPolicy,
    heads: Heads,
    others: Heads,
    out: Path,
    facts: Mapping[str, Any],
    results: Mapping[str, Any],
) -> MisicalPolicy:
    """The policy with the ranges of its inputs, and how well it finds, on disk."""
    low, high = input_ranges(heads)
    training = {key: facts[key] for key in ("labelled_regions", "seed", "config")}
    spec = replace(policy.spec, low=low, high=high, training=training)
    policy = MisicalPolicy(spec, policy.network.cpu(), out.name)
    policy.save(result_path(out, "safetensors"))
    measured = {"gathered": round(one_look(policy, others), 5)}
    write_json(result_path(out, "json"), {**facts, **results, **measured})
    return policy


def one_look(policy: MisicalPolicy, heads: Heads) -> float:
    """Mean over heads of what the best-ranked regions of their searches hold, of the most possible.

    A fifth of the candidates are picked.
    """
    shares = []
    for searches in heads:
        of_head = []
        for search in searches:
            state = torch.from_numpy(search.state(np.zeros(0, np.int64), 0.0))
            with torch.inference_mode():
                scores = policy.network(state[None], torch.from_numpy(search.inputs)[None])[0]
            order = np.argsort(-scores.numpy(), kind="stable")
            of_head.append(gathered_share(search, order[: max(1, len(search) // 5)]))
        shares.append(np.mean(of_head))
    return float(np.mean(shares))


def input_ranges(heads: Heads) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """0.5 and 99.5 % of each input in searches; `progress` may be anything."""
    searches = [search for searches in heads for search in searches]
    states = np.stack([search.state(np.zeros(0, np.int64), 0.0) for search in searches])
    regions = np.concatenate([search.sample for search in searches])
    ranges = [np.quantile(values, [0.005, 0.995], axis=0) for values in (states, regions)]
    low, high = np.concatenate(ranges, axis=1)
    at = STATE_INPUTS.index("progress")
    low[at], high[at] = 0, 1
    return tuple(round(float(it), 5) for it in low), tuple(round(float(it), 5) for it in high)
