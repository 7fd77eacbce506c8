from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ralis_backend.core.acquisition import STRATEGIES
from ralis_backend.core.features import concat
from ralis_backend.core.images import decode_image, mask_to_png
from ralis_backend.core.policy import (
    AgnosticPolicy,
    AgnosticSpec,
    PolicySpec,
    QueryNetwork,
    RalisPolicy,
)
from ralis_backend.core.policy.registry import DEFAULT, check_strategy, find_strategy
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.offline.datasets import plain_folder
from ralis_backend.offline.training.environment import EnvironmentConfig, LabellingEnv
from ralis_backend.online.choosing import ChosenStrategy, RankingConfig
from ralis_backend.online.ranking import DescribedPool, describe_image, pool_state, score_pool
from ralis_backend.online.store import Store
from ralis_backend.online.worker import Worker, WorkerConfig
from ralis_backend.simulation.full import FullSimulation
from tests.online.conftest import RANKING, TINY, label_round, settle
from tests.online.fake_tool import CLASSES, FakeTool, picture

NAMES = tuple(label.name for label in CLASSES)


def _policy(classes: tuple[str, ...] = NAMES, num_state_regions: int = 12) -> RalisPolicy:
    torch.manual_seed(0)
    spec = PolicySpec(classes, (32, 32), num_state_regions)
    return RalisPolicy(spec, QueryNetwork(len(classes), num_state_regions))


@pytest.fixture
def make_worker(store: Store, tool: FakeTool, tmp_path: Path) -> Callable[[RalisPolicy], Worker]:
    def make(policy: RalisPolicy, **changes: object) -> Worker:
        folder = tmp_path / "policies"
        policy.save(folder / "ralis-camvid.safetensors")
        ranking = replace(RANKING, strategy="ralis", policies_dir=folder, **changes)
        store.projects.register(
            tool.pool.uid, tool.pool.id, tool.pool.label_config, CLASSES, "pool"
        )
        config = WorkerConfig(mode="crops", ranking=ranking, finetune=TINY, trust_rounds=0)
        return Worker(store, tool, config)

    return make


def _label_until_trained(worker: Worker, store: Store, tool: FakeTool) -> None:
    for _ in range(2):  # the first version may still lack a class: then coverage ranks
        settle(worker)
        label_round(store, tool)
    settle(worker)


@pytest.mark.e2e  # slow
@pytest.mark.parametrize("policy_pool", ["whole", "training"])
def test_the_worker_ranks_a_project_with_a_policy(make_worker, store, tool, policy_pool):
    worker = make_worker(_policy(), policy_pool=policy_pool)
    _label_until_trained(worker, store, tool)
    project = store.projects.all()[0]
    version = store.versions.find(project.id, project.current_version)
    assert version is not None
    assert version.strategy == "ralis"
    assert "strategy_note" not in version.metrics
    assert len(tool.queue()) > 0
    data = tool.region_tasks[tool.queue()[0]].data
    assert "trained policy ralis" in data["reason"]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (_policy(("a", "b", "c")), "trained for the 3 classes a, b, c"),
        (_policy(num_state_regions=500), "state set of 500 regions"),
    ],
)
def test_a_policy_that_does_not_fit_is_replaced_and_the_version_says_why(
    make_worker, store, tool, policy, message
):
    _label_until_trained(make_worker(policy), store, tool)
    project = store.projects.all()[0]
    version = store.versions.find(project.id, project.current_version)
    assert version is not None
    assert version.strategy == "coverage"
    assert message in version.metrics["strategy_note"]
    assert len(tool.queue()) > 0


@pytest.mark.e2e  # slow
def test_a_damaged_policy_does_not_stop_the_project(make_worker, store, tool, tmp_path):
    worker = make_worker(_policy())
    (tmp_path / "policies" / "ralis-camvid.safetensors").write_bytes(b"no policy")
    _label_until_trained(worker, store, tool)
    project = store.projects.all()[0]
    version = store.versions.find(project.id, project.current_version)
    assert version is not None
    assert version.strategy == "coverage"
    assert "truncated" in version.metrics["strategy_note"]


def test_names_stand_for_built_in_strategies_and_files(tmp_path):
    _policy().save(tmp_path / "mine.safetensors")
    assert find_strategy("margin", tmp_path, NAMES, (32, 32)) is STRATEGIES["margin"]
    assert find_strategy("mine", tmp_path, NAMES, (32, 32)).name == "mine"
    AgnosticPolicy.untrained(AgnosticSpec(), 0, "any").save(tmp_path / "any.safetensors")
    assert find_strategy("any", tmp_path, ("one", "two"), (9, 9)).name == "any"
    assert find_strategy("placebo-untrained", tmp_path, NAMES, (32, 32)).name == "placebo-untrained"
    assert find_strategy("default", tmp_path, NAMES, (32, 32)).name == DEFAULT
    with pytest.raises(ValueError, match=r"unknown strategy 'badge'.*entropy.*mine"):
        check_strategy("badge", tmp_path)
    with pytest.raises(ValueError, match="unknown strategy"):
        check_strategy("../mine", tmp_path / "deeper")


def test_scores_are_the_same_online_and_offline(store, tool, tmp_path):
    """The same segmenter, images and labels: by the environment, and by the ranking of a pool."""
    folder = tmp_path / "images"
    (folder / "masks").mkdir(parents=True)
    for number in range(6):
        content, mask = picture(number)
        (folder / f"{number}.png").write_bytes(content)
        (folder / "masks" / f"{number}.png").write_bytes(mask_to_png(mask))
    samples = list(plain_folder(folder, NAMES).samples.values())
    spec = SegmenterSpec(2, encoder_weights=None)

    config = RankingConfig(region_size=(32, 32), spec=SegmenterSpec(1, encoder_weights=None))
    offline = FullSimulation(samples, samples[:2], samples[:1], spec, (32, 32))
    labelled = np.array([0, 7, 20])
    chosen = ChosenStrategy(_policy())
    described = [
        describe_image(offline.segmenter, decode_image(sample.content()), config, chosen.described)
        for sample in samples
    ]
    features = concat([each.features for each in described])
    is_done = np.zeros(36, bool)
    is_done[labelled] = True
    pool = DescribedPool(features, [6] * 6, is_done)
    state_set = pool.state_set(12).take(np.arange(12))

    policy = chosen.strategy
    project = store.projects.register(
        tool.pool.uid, tool.pool.id, tool.pool.label_config, CLASSES, ""
    )
    pixels = offline.class_pixels[labelled]
    state = pool_state(project, pixels, features.embeddings[labelled], 4, config, 1)
    online, _ = score_pool(project, chosen, state, pool, config)

    rules = EnvironmentConfig(
        budget=8, regions_per_step=1, pool_size=33 - 5, initial_regions=3, initial_updates=1
    )
    environment = LabellingEnv(offline, rules)
    environment.labelled = labelled
    environment._pools = np.flatnonzero(~is_done)[None]
    offered = offline.describe(environment.pools[0])
    played = replace(
        environment.pool_state(np.random.default_rng(0)),
        state_set=state_set,
    )
    np.testing.assert_allclose(policy.scores(played, offered), online, rtol=1e-5, atol=1e-6)
    assert np.std(online) > 0
