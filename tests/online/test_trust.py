from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from ralis_backend.core import weights
from ralis_backend.core.acquisition import Aimed, Drift, PoolState, Strategy, strategy
from ralis_backend.core.acquisition.chance import Random
from ralis_backend.core.acquisition.classes import BaldRarity
from ralis_backend.core.acquisition.mining import Presence
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.policy import AgnosticPolicy, AgnosticSpec
from ralis_backend.online import choosing, trust
from ralis_backend.online.labels import labelled_pixels
from ralis_backend.online.learned import learned_pixels
from ralis_backend.online.ranking import rank_image
from ralis_backend.online.report import notes
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Project, Version
from ralis_backend.online.trust import (
    judge,
    judge_formula,
    judge_miner,
    may_be_refused,
    replay_project,
    standing_verdict,
)
from ralis_backend.online.worker import Worker, WorkerConfig
from ralis_backend.online.worker import rank as ranks
from ralis_backend.simulation import verdict as replays
from ralis_backend.simulation.heads import HeadConfig
from ralis_backend.simulation.mining import MiningRules
from ralis_backend.simulation.verdict import ReplayRules, TooFewLabels
from tests.online.conftest import RANKING, TINY, settle
from tests.online.fake_tool import CLASSES, FakeTool, picture

pytestmark = pytest.mark.e2e  # a dozen replays

RULES = ReplayRules(
    num_games=2,
    updates_per_step=2,
    final_updates=4,
    max_regions=100,
    head=HeadConfig(hidden=8, batch_size=32),
)


class Learned(BaldRarity):
    """Passes for a trained policy; it ranks as the best heuristic does."""

    name = "learned"
    is_trained = True

    def __init__(self, share_outside: float = 0.0, far: tuple[str, ...] = ()) -> None:
        self.share_outside, self.far = share_outside, far

    def drift(self, state: PoolState, actions: RegionFeatures) -> Drift:
        return Drift(self.share_outside, ("margin", "entropy"), self.far)


class Opposite(Learned):
    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        return -super().scores(state, actions)


@pytest.fixture
def tool() -> FakeTool:
    return FakeTool(num_images=20)


@pytest.fixture
def project(store: Store, tool: FakeTool) -> Project:
    return store.projects.register(
        tool.pool.uid, tool.pool.id, tool.pool.label_config, CLASSES, "pool"
    )


@pytest.fixture
def make_worker(
    store: Store, tool: FakeTool, project: Project, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Worker]:
    """A worker whose project, once trained, is to be ranked by this policy."""

    def make(policy: Strategy, num_labelled: int = 18, **values: object) -> Worker:
        for task in tool.pool_tasks[:num_labelled]:
            mask = tool.files[task.id][1].tolist()
            tool.annotate(task.id, [{"mask": mask}], project_id=1)
        monkeypatch.setattr(choosing, "find_strategy", lambda *_: policy)
        config = WorkerConfig("crops", RANKING, TINY, replay=RULES, **values)  # type: ignore[arg-type]
        return Worker(store, tool, config)

    return make


def _version(store: Store) -> Version:
    project = store.projects.all()[0]
    version = store.versions.find(project.id, project.current_version)
    assert version is not None
    return version


def _notes(version: Version) -> str:
    return "\n".join(notes([(version.name, version.metrics)]))


def _scores_of(monkeypatch: pytest.MonkeyPatch, **scores: tuple[float, float]) -> None:
    """Let these score so in two games where all others score 50 and 51."""

    def replay(regions: object, strategies: Mapping[str, Strategy], *_: object, **__: object):
        given = {name: scores.get(name, (50.0, 51.0)) for name in strategies}
        return {name: np.array(each) for name, each in given.items()}

    monkeypatch.setattr(trust, "replay", replay)


def test_a_policy_that_holds_its_own_ranks_and_the_version_tells_the_numbers(
    make_worker, store, monkeypatch
):
    _scores_of(monkeypatch, learned=(51.0, 52.0))
    settle(make_worker(Learned()))
    version = _version(store)
    assert version.strategy == "learned"
    verdict = version.metrics["trust"]
    assert (verdict["verdict"], verdict["policy"], verdict["games"]) == ("trusted", "learned", 2)
    assert (verdict["regions"], verdict["labels"]) == (100, 108)
    assert verdict["over_heuristic"]["low"] <= verdict["over_heuristic"]["high"]
    assert "strategy_note" not in version.metrics
    assert "learned, trusted: replay on 100 regions" in _notes(version)


def test_a_policy_that_loses_does_not_rank_and_everybody_is_told(
    make_worker, store, tool, monkeypatch, caplog
):
    _scores_of(monkeypatch, learned=(40.0, 42.0))
    settle(make_worker(Learned()))
    version = _version(store)
    assert version.strategy == "coverage"
    assert version.metrics["trust"]["verdict"] == "not trusted"
    assert "policy learned, not trusted: replay on" in _notes(version)
    assert "-9.5 [-15.9, -3.1] against coverage" in _notes(version)
    assert "policy learned, not trusted" in caplog.text
    reasons = [tool.region_tasks[task].data["reason"] for task in tool.queue()]
    ranked = [reason for reason in reasons if "at random" not in reason]
    assert ranked
    assert all(reason.endswith("(in place of learned: not trusted)") for reason in ranked)


def test_a_policy_whose_inputs_have_drifted_does_not_rank(make_worker, store, monkeypatch):
    _scores_of(monkeypatch)
    settle(make_worker(Learned(share_outside=0.31)))
    version = _version(store)
    assert version.strategy == "coverage"
    assert version.metrics["trust"]["drift"] == {
        "share_outside": 0.31,
        "worst": ["margin", "entropy"],
    }
    assert "31 % of this pool's inputs lie outside" in _notes(version)
    told = trust._drift(Learned(far=("classes",)), None, None)
    assert trust._is_drifted(told), "one input far outside is enough"
    assert trust._drift_text(told) == (
        "this project lies far outside the ranges of its training in classes"
    )
    assert strategy("entropy").drift(None, None) is None


def test_with_too_few_labels_the_heuristic_ranks_and_says_how_many_it_takes(make_worker, store):
    settle(make_worker(Learned(), num_labelled=10))
    version = _version(store)
    assert version.strategy == "coverage"
    assert "60 regions of 10 images are labelled" in _notes(version)
    assert "takes 96 regions of 8 images" in _notes(version)


def test_a_test_that_fails_does_not_stop_the_loop(make_worker, store, tool, monkeypatch):
    def encoder(*_):
        raise ValueError("the imagenet weights could not be had")

    monkeypatch.setattr(trust, "PointEncoder", encoder)
    settle(make_worker(Learned()))
    version = _version(store)
    assert version.strategy == "coverage"
    assert version.metrics["trust"]["verdict"] == "failed"
    assert "could not be tested: the imagenet weights could not be had" in _notes(version)
    assert len(tool.queue()) > 0


def test_a_verdict_stands_until_enough_was_labelled_since(
    make_worker, store, tool, project, monkeypatch
):
    asked = []

    def judge(*arguments):
        asked.append(arguments)
        return {"policy": "learned", "verdict": verdicts.pop(0), "note": "n"}

    verdicts = ["too few labels", "trusted", "trusted"]
    monkeypatch.setattr(ranks, "judge", judge)
    worker = make_worker(Learned(), trust_rounds=2)

    def label(count: int) -> None:
        for task_id in tool.queue()[:count]:
            store.events.add("2.200", "ANNOTATION_CREATED", tool.annotate(task_id))
        settle(worker)

    settle(worker)
    assert len(asked) == 1
    label(4)
    assert len(asked) == 2  # too few labels: asked again
    label(4)
    assert len(asked) == 2  # trusted: stands for two rounds of four
    assert _version(store).strategy == "learned"


TRUSTED = {"policy": "any", "labels": 150, "verdict": "trusted"}
REFUSED = {"policy": "any", "labels": 500, "verdict": "not trusted"}


def test_the_newest_verdict_stands_while_its_labels_do():
    assert standing_verdict([REFUSED, None, TRUSTED], "any", 200, 96) == TRUSTED
    assert standing_verdict([REFUSED, TRUSTED], "any", 245, 96) == TRUSTED
    assert standing_verdict([REFUSED, TRUSTED], "any", 246, 96) is None
    assert standing_verdict([TRUSTED, REFUSED], "any", 500, 96) == REFUSED
    assert standing_verdict([TRUSTED, REFUSED], "any", 499, 96) is None  # one was deleted
    assert standing_verdict([TRUSTED, REFUSED], "other", 500, 96) is None
    later = {**TRUSTED, "tested_at": "2026-02-01T00:00:00+00:00"}
    earlier = {**REFUSED, "tested_at": "2026-01-01T00:00:00+00:00"}
    assert standing_verdict([later, earlier], "any", 200, 96) == later  # version 1 ranks again


def test_a_verdict_is_on_a_file_and_not_on_its_name():
    known = {**TRUSTED, "policy_sha256": "aa"}
    assert standing_verdict([known], "any", 200, 96, "aa") == known
    assert standing_verdict([known], "any", 200, 96, "bb") is None
    assert standing_verdict([TRUSTED], "any", 200, 96, "bb") == TRUSTED  # from before


def test_a_verdict_says_which_file_was_tested_and_when(store, tool, project, tmp_path):
    policy = AgnosticPolicy.untrained(AgnosticSpec(), 0, "mine")
    policy.save(tmp_path / "mine.safetensors")
    state = PoolState(np.zeros((0, 3), np.int64), None, 4, np.random.default_rng(0))
    config = replace(RANKING, policies_dir=tmp_path)
    place = (store, tool.image, project)
    entry = judge(*place, policy, state, RegionFeatures(0, {}), config, RULES, lambda: None)
    assert entry["verdict"] == "too few labels"
    assert entry["policy_sha256"] == weights.digest(tmp_path / "mine.safetensors")
    assert datetime.fromisoformat(entry["tested_at"]) <= now()
    formula = judge_formula(*place, strategy("margin"), config, RULES, lambda: None)
    assert formula["policy_sha256"] is None


def test_trust_rounds_0_asks_for_no_proof(make_worker, store):
    settle(make_worker(Opposite(share_outside=1.0), trust_rounds=0))
    version = _version(store)
    assert version.strategy == "learned"
    assert "trust" not in version.metrics


def test_where_the_best_heuristic_loses_to_random_a_refused_policy_makes_way_for_random(
    make_worker, store, monkeypatch
):
    _scores_of(monkeypatch, learned=(40.0, 42.0), coverage=(45.0, 46.0))
    settle(make_worker(Learned()))
    assert _version(store).strategy == "random"


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("scores", "ranks_instead"),
    [
        ({"margin": (40.0, 42.0)}, "coverage"),
        ({"margin": (40.0, 42.0), "coverage": (48.0, 49.0)}, "random"),
        ({"margin": (40.0, 61.0)}, None),  # not shown to lose
        ({"margin": (50.0, 51.0), "coverage": (40.0, 42.0)}, None),
        ({"coverage": (40.0, 42.0)}, None),
    ],
)
def test_a_formula_that_is_shown_to_lose_to_random_makes_way_and_says_so(
    make_worker, store, tool, monkeypatch, scores, ranks_instead
):
    _scores_of(monkeypatch, **scores)
    settle(make_worker(strategy("margin")))
    version = _version(store)
    assert version.strategy == (ranks_instead or "margin")
    refused = "strategy margin, not trusted: replay on 100 regions, points of mIoU: "
    assert (refused in _notes(version)) == (ranks_instead is not None)
    assert ("margin, trusted: replay on 100 regions" in _notes(version)) == (ranks_instead is None)
    reasons = [tool.region_tasks[task].data["reason"] for task in tool.queue()]
    told = [reason for reason in reasons if reason.endswith("(in place of margin: not trusted)")]
    assert bool(told) == (ranks_instead is not None)


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("wanted", "scores", "ranks_instead"),
    [
        (strategy("margin"), {"margin": (40.0, 42.0)}, "coverage"),
        (strategy("margin"), {"margin": (40.0, 42.0), "coverage": (48.0, 49.0)}, "random"),
        (Learned(), {"learned": (40.0, 42.0), "coverage": (45.0, 46.0)}, "random"),
        (strategy("margin"), {}, "margin"),
    ],
)
def test_an_image_that_comes_later_is_ranked_by_whoever_ranks_the_pool(
    make_worker, store, tool, monkeypatch, wanted, scores, ranks_instead
):
    _scores_of(monkeypatch, **scores)
    settle(make_worker(wanted))
    (project,), version = store.projects.all(), _version(store)
    assert version.strategy == ranks_instead
    labelled = labelled_pixels(store.labels.of(project.id), len(project.classes))
    learned = learned_pixels(store, project, version, store.labels.of(project.id))
    ranked = rank_image(store, project, version, picture(99)[0], RANKING, labelled, learned)
    told = {"coverage": "may teach the model", "random": "random", "margin": ""}[ranks_instead]
    assert all(told in reason for reason in ranked.reasons)
    assert ranked.pool_scores is not None


def test_a_class_is_sought_in_an_image_that_comes_later(make_worker, store):
    similar = Aimed(strategy("similarity"), 1, CLASSES[1].name)
    settle(make_worker(similar))
    (project,), version = store.projects.all(), _version(store)
    assert version.strategy == similar.name
    labelled = labelled_pixels(store.labels.of(project.id), len(project.classes))
    learned = learned_pixels(store, project, version, store.labels.of(project.id))
    ranked = rank_image(store, project, version, picture(99)[0], RANKING, labelled, learned)
    assert all(f"looks for {CLASSES[1].name}" in reason for reason in ranked.reasons)
    assert ranked.pool_scores is None  # the pool's are of another kind


def test_a_formula_ranks_without_a_proof_where_labels_are_too_few(make_worker, store):
    settle(make_worker(strategy("margin"), num_labelled=10))
    version = _version(store)
    assert version.strategy == "margin"
    assert version.metrics["trust"]["verdict"] == "too few labels"
    assert "margin" not in _notes(version)


def test_a_formula_that_cannot_be_tested_ranks(make_worker, store, monkeypatch):
    def encoder(*_):
        raise ValueError("the imagenet weights could not be had")

    monkeypatch.setattr(trust, "PointEncoder", encoder)
    settle(make_worker(strategy("margin")))
    assert _version(store).strategy == "margin"
    assert _version(store).metrics["trust"]["verdict"] == "failed"


def test_random_and_what_looks_for_one_class_need_not_beat_random(make_worker, store):
    for chosen in (strategy("random"), Aimed(strategy("presence"), 1, "bright")):
        assert not may_be_refused(Version(weights_key="w"), chosen)
    assert may_be_refused(Version(weights_key="w"), strategy("coverage"))
    assert not may_be_refused(Version(weights_key=None), strategy("coverage"))


def test_a_replay_of_formulas_ends_when_they_are_clearly_ahead(
    make_worker, store, tool, project, monkeypatch
):
    settle(make_worker(strategy("margin"), num_labelled=18, trust_rounds=0))
    curves = {"margin": 0.6, "coverage": 0.55, "random": 0.5}

    def play(arena: object, chosen: Strategy, *_: object):
        return {"curve": [{"miou": curves[chosen.name]}]}

    monkeypatch.setattr(replays, "play", play)
    arguments = (store, tool.image, project, strategy("margin"), RANKING, ReplayRules(num_games=9))
    assert judge_formula(*arguments, lambda: None)["games"] == 4
    curves["coverage"] = 0.5  # neither ahead nor behind: every game is played
    entry = judge_formula(*arguments, lambda: None)
    assert (entry["games"], entry["verdict"]) == (9, "trusted")


def test_a_replay_reads_the_labelled_regions_and_bounds_them(make_worker, store, tool, project):
    settle(make_worker(Learned(), num_labelled=18))
    tool.calls.clear()
    classes = [*store.projects.by_id(project.id).classes, {"name": "bus", "is_active": False}]
    classes[0] = {**classes[0], "background": "asked"}
    store.projects.change(project.id, classes=classes)
    told = set()

    class Told(Random):
        def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
            told.add((state.background, state.removed_classes))
            return super().scores(state, actions)

    played = replay_project(
        store, tool.image, store.projects.by_id(project.id), {"random": Told()}, RANKING, RULES
    )
    assert told == {(0, (2,))}, "it is the game that the ranking plays"
    assert (played.num_regions, played.num_images) == (100, 17)
    assert tool.calls.count("image") == 2 * 17  # once for the scale, once for the points


def test_unreadable_images_are_left_out_and_none_readable_says_why(
    make_worker, store, tool, project
):
    settle(make_worker(Learned(), num_labelled=18))
    only_random = {"random": strategy("random")}
    rules = replace(RULES, max_regions=400)

    def one_is_gone(task):
        if task.id == 3:
            raise ValueError("task 3 has no image")
        return tool.image(task)

    played = replay_project(store, one_is_gone, project, only_random, RANKING, rules)
    assert (played.num_regions, played.num_images) == (102, 17)
    assert [image.task_id for image in store.images.bad(project.id)] == [3]
    asked = []

    def gone(task):
        asked.append(task.id)
        raise ValueError(f"task {task.id} has no image")

    with pytest.raises(ValueError, match=r"none of 17 labelled images .* has no image.*doctor"):
        replay_project(store, gone, project, only_random, RANKING, rules)
    assert len(asked) == 17


def test_a_replay_can_be_stopped_before_each_image(make_worker, store, tool, project):
    settle(make_worker(Learned(), num_labelled=18))
    tool.calls.clear()

    def stop(done: int, total: int) -> None:
        if tool.calls.count("image") == 2:
            raise InterruptedError

    only_random = {"random": strategy("random")}
    with pytest.raises(InterruptedError):
        replay_project(store, tool.image, project, only_random, RANKING, RULES, stop)
    assert tool.calls.count("image") == 2


def test_a_project_without_labels_says_how_many_it_takes(store, tool, project):
    with pytest.raises(TooFewLabels, match="0 regions of 0 images"):
        replay_project(store, tool.image, project, {}, RANKING, RULES)


class Elsewhere(Presence):
    """Passes for a trained miner; it looks where presence looks least."""

    name = "elsewhere"
    is_trained = True

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        return -super().scores(state, actions)


class Drifted(Presence):
    """Passes for a trained miner that knows nothing like this pool."""

    name = "drifted"
    is_trained = True

    def drift(self, state: PoolState, actions: RegionFeatures) -> Drift:
        return Drift(0.5, ("peak",))


@pytest.mark.parametrize(
    ("miner", "note"),
    [
        (Elsewhere(), "percent of what there was to find: -"),
        (Drifted(), "50 % of this pool's inputs lie outside the ranges of its training"),
    ],
)
def test_a_miner_that_finds_less_or_knows_no_such_pool_is_not_trusted(
    store, tool, project, miner, note
):
    for task in tool.pool_tasks[:18]:
        tool.annotate(task.id, [{"mask": tool.files[task.id][1].tolist()}], project_id=1)
    settle(Worker(store, tool, WorkerConfig("crops", RANKING, TINY, improve_s=0.0, replay=RULES)))
    state = PoolState(np.zeros((0, 3), np.int64), None, 4, np.random.default_rng(0))
    rules = MiningRules(num_games=3, num_updates=20, head=HeadConfig(hidden=8, batch_size=32))
    rivals = [Aimed(strategy("presence"), 1, "bright")]
    entry = judge_miner(
        store, tool.image, project, Aimed(miner, 1, "bright"), rivals, 1, state,
        RegionFeatures(0, {}), RANKING, rules, lambda: None,
    )  # fmt: skip
    assert (entry["verdict"], entry["best"]) == ("not trusted", "presence:bright")
    assert note in entry["note"]
    assert entry["found"]["presence:bright"] > 0.5
    assert (entry["games"], entry["regions"], entry["images"]) == (3, 108, 18)


def test_a_search_for_what_hardly_any_region_shows_is_not_replayed(store, tool, project):
    settle(Worker(store, tool, WorkerConfig("crops", RANKING, TINY, improve_s=0.0, replay=RULES)))
    state = PoolState(np.zeros((0, 3), np.int64), None, 4, np.random.default_rng(0))
    num_looks = tool.calls.count("image")
    entry = judge_miner(
        store, tool.image, project, Aimed(Elsewhere(), 1, "bright"),
        [Aimed(strategy("presence"), 1, "bright")], 1, state,
        RegionFeatures(0, {}), RANKING, MiningRules(), lambda: None,
    )  # fmt: skip
    assert entry["verdict"] == "too few labels"
    assert "0 labelled regions of 0 images show 'bright'" in entry["note"]
    assert tool.calls.count("image") == num_looks  # nothing was read for it
