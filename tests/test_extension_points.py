"""Each thing that another package can bring along, added from here alone and used to the end."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from ralis_backend.cli import app
from ralis_backend.core import weights
from ralis_backend.core.acquisition import STRATEGIES, Needs, PoolState, Scorer
from ralis_backend.core.features import RegionFeatures
from ralis_backend.core.files import write_json
from ralis_backend.core.learning.finetune import finetune
from ralis_backend.core.learning.registry import OBJECTIVES
from ralis_backend.core.policy.registry import DEFAULT, POLICIES
from ralis_backend.core.registry import Registry
from ralis_backend.core.segmenter import SEGMENTERS, SegmenterSpec, build, load
from ralis_backend.labelstudio.payloads.answers import read_answers
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.labelstudio.payloads.regions_config import regions_config
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.training.config import PRESETS
from ralis_backend.offline.training.registry import TRAINERS, register
from ralis_backend.offline.training.rewards import SCORES
from ralis_backend.offline.training.trainer import Progress
from ralis_backend.online.answers import ANSWER_KINDS, AnswerKind, Choice
from ralis_backend.online.export import export_project
from ralis_backend.online.export.formats import FORMATS
from ralis_backend.online.report import notes
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project, Version
from ralis_backend.online.worker import Worker, WorkerConfig
from ralis_backend.settings import load_settings
from ralis_backend.wiring import segmenter_spec
from tests import REPOSITORY, plug_in
from tests.cli.test_train_policy import TINY as TINY_TRAINING
from tests.core.learning.test_finetune import TINY as TINY_FINETUNE
from tests.core.learning.test_finetune import _image
from tests.local_server import LocalServer
from tests.online.conftest import RANKING, TINY, label_round, settle
from tests.online.fake_tool import CLASSES, FakeTool
from tests.online.test_trust import RULES
from tests.tiny_segmenter import TinySegmenter

pytestmark = pytest.mark.e2e

RANDOM = SegmenterSpec(1, encoder_weights=None)
PAGE = REPOSITORY / "docs" / "plug-ins.md"

Plug = Callable[[Registry[Any], str, Any], None]


@pytest.fixture
def plug() -> Iterator[Plug]:
    """Add something to a registry until the end of the test."""
    added: list[tuple[Registry[Any], str]] = []

    def add(registry: Registry[Any], name: str, thing: Any) -> None:
        registry.register(name, thing)
        added.append((registry, name))

    yield add
    for registry, name in added:
        del registry[name]


@pytest.fixture
def ralis(tmp_path, monkeypatch) -> Callable[..., str]:
    """Run the command in an empty folder; its output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RALIS_ENCODER_WEIGHTS", "none")

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == 0, f"{done.output}{done.exception}"
        return done.output

    return run


@dataclass
class Site:
    """A project in memory, and the worker that looks after it."""

    store: Store
    tool: FakeTool
    worker: Worker

    @property
    def project(self) -> Project:
        return self.store.projects.all()[0]

    @property
    def version(self) -> Version:
        found = self.store.versions.find(self.project.id, self.project.current_version)
        assert found is not None
        return found

    @property
    def notes(self) -> str:
        """Without what was measured."""
        lines = notes([(self.version.name, self.version.metrics)])
        return "\n".join(line for line in lines if ": IoU on " not in line)

    def label_until_trained(self) -> None:
        for _ in range(2):  # the first version may still lack a class: then rarity ranks
            settle(self.worker)
            label_round(self.store, self.tool)
        settle(self.worker)

    def export(self, out: Path, **options: Any) -> None:
        export_project(self.store, self.tool.image, self.project.uid, out, **options)


@pytest.fixture
def make_site(tmp_path) -> Iterator[Callable[..., Site]]:
    store = Store.open(f"sqlite:///{tmp_path}/state/ralis.db", tmp_path / "state" / "blobs")

    def make(tool: FakeTool | None = None, trust_rounds: int = 0, **ranking: Any) -> Site:
        tool = tool or FakeTool()
        pool = tool.pool
        store.projects.register(pool.uid, pool.id, pool.label_config, CLASSES, "pool")
        config = WorkerConfig(
            ranking=replace(RANKING, **{"spec": RANDOM, **ranking}),
            finetune=TINY,
            trust_rounds=trust_rounds,
            replay=RULES,
            random_share=0.0,
        )
        return Site(store, tool, Worker(store, tool, config))

    yield make
    store.close()


def play(ralis: Callable[..., str], dataset: Dataset, strategies: str) -> dict[str, Any]:
    """What `ralis benchmark` finds of strategies, in one small game each."""
    ralis(
        "benchmark", "--dataset", str(dataset.root), "--strategies", strategies, "--budgets",
        "8", "--initial-regions", "4", "--region-size", "32x32", "--seeds", "1", "--updates", "3",
        "--regions-per-step", "4", "--pool-size", "3", "--jobs", "1", "--out", "results",
    )  # fmt: skip
    found: dict[str, Any] = json.loads(Path("results/summary.json").read_text())["strategies"]
    return found


# A strategy


class Seeker(Scorer):
    """Regions that probably show the class that is sought."""

    name = "seeker"
    needs = Needs(frozenset(("class_probabilities",)), has_target_class=True)
    is_pointwise = True

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        return actions.class_probabilities[:, state.target_class]


def test_a_strategy_that_looks_for_a_class_ranks_a_project_and_plays_a_game(
    plug, make_site, ralis, tiny_dataset
):
    plug(STRATEGIES, "seeker", Seeker())
    site = make_site(strategy="seeker:bright")
    site.label_until_trained()
    assert (site.version.strategy, site.notes) == ("seeker:bright", "")
    waiting = [site.tool.region_tasks[task].data for task in site.tool.queue()]
    # a region that is chosen again keeps its task, and what that says
    made = [data["reason"] for data in waiting if data["version"] == site.version.name]
    assert set(made) == {"chosen by seeker"}
    assert set(play(ralis, tiny_dataset, "random,seeker:box")) == {"random", "seeker:box"}


# A kind of policy, and its trainer

FEATURES = frozenset(("class_counts", "entropy"))


class Contrast(Scorer):
    """Learned weights of entropy, of difference from the pool and from the state set."""

    is_trained = True
    needs = Needs(FEATURES, state_regions=6, has_unlabelled_pool=True)

    def __init__(self, learned: torch.Tensor, name: str) -> None:
        self.learned, self.name = learned, name

    def save(self, path: Path) -> None:
        weights.save(path, {"learned": self.learned}, {"kind": "contrast"})

    @classmethod
    def load(cls, path: Path, name: str) -> Contrast:
        tensors, metadata = weights.load(path)
        if metadata.get("kind") != "contrast":
            raise weights.WeightsError(f"{path} holds no contrast policy; train one")
        return cls(tensors["learned"], name)

    def fitted(self, classes, region_size) -> Contrast:
        return self

    def scores(self, state: PoolState, actions: RegionFeatures) -> np.ndarray:
        assert state.state_set is not None
        assert len(state.state_set) >= 6
        assert state.unlabelled_counts is not None
        parts = [actions.entropy, *(
            np.abs(actions.class_counts - others.mean(axis=0)).mean(axis=1)
            for others in (state.unlabelled_counts, state.state_set.class_counts)
        )]  # fmt: skip
        return np.asarray(self.learned.numpy() @ np.stack(parts), np.float32)


@dataclass(frozen=True)
class ContrastConfig:
    games: int = 3


class ContrastTrainer:
    takes_several_datasets = False
    splits = ("d_t",)

    def configured(self, config, options):
        return replace(config, games=options.episodes or config.games)

    def prepare(self, config, datasets, equipment):
        return partial(self.train, config, datasets[0])

    def train(self, config, dataset, out, *, seed, on_progress):
        learned = torch.from_numpy(np.random.default_rng(seed).random(3, np.float32))
        for game in range(1, config.games + 1):
            on_progress(Progress(game, config.games, 0.5, f"game {game}", 0.0))
        Contrast(learned, out.name).save(out.with_suffix(".safetensors"))
        regions = {dataset.name: 6 * len(dataset.split("d_t"))}
        write_json(
            out.with_suffix(".json"), {"config": asdict(config), "labelled_regions": regions}
        )


@pytest.fixture
def contrast(plug) -> Iterator[None]:
    plug(POLICIES, "contrast", Contrast.load)
    register(ContrastConfig, ContrastTrainer())
    plug(PRESETS, "contrast", ContrastConfig())
    yield
    del TRAINERS[ContrastConfig]


@pytest.fixture
def trained(contrast, ralis, tiny_dataset, tmp_path) -> Path:
    """The folder with a policy of that kind, called `mine`."""
    folders = ("--dataset", str(tiny_dataset.root), "--out", "policies/mine")
    told = ralis("train-policy", *folders, "--config", "contrast", "--episodes", "2")
    assert "game 2, score 50.0" in told
    return tmp_path / "policies"


def test_a_kind_of_policy_is_trained_ranks_and_plays(trained, make_site, ralis, tiny_dataset):
    assert json.loads((trained / "mine.json").read_text())["config"] == {"games": 2}
    assert weights.load_metadata(trained / "mine.safetensors")["kind"] == "contrast"
    site = make_site(strategy="mine", policies_dir=trained)
    site.label_until_trained()
    assert (site.version.strategy, site.notes) == ("mine", "")
    assert len(site.tool.queue()) > 0
    assert set(play(ralis, tiny_dataset, "random,mine")) == {"random", "mine"}


@pytest.mark.long
def test_a_kind_of_policy_is_tested_on_a_project_before_it_ranks(trained, make_site):
    tool = FakeTool(num_images=18)
    for task in tool.pool_tasks[:17]:
        tool.annotate(task.id, [{"mask": tool.files[task.id][1].tolist()}], project_id=1)
    site = make_site(tool, trust_rounds=4, strategy="mine", policies_dir=trained)
    settle(site.worker)
    verdict = site.version.metrics["trust"]
    assert (verdict["policy"], verdict["games"]) == ("mine", RULES.num_games)
    assert verdict["verdict"] in ("trusted", "not trusted", "too few labels")
    assert verdict["over_random"] is not None


# A segmenter


class Blunt(TinySegmenter):
    """Offers nothing but probabilities."""

    kind = "blunt"
    offers = frozenset()


def test_a_segmenter_that_is_no_smp_network_is_trained_ranks_and_is_exported(
    plug, make_site, tmp_path, monkeypatch
):
    plug(SEGMENTERS, "tiny", TinySegmenter)
    monkeypatch.setenv("RALIS_ARCHITECTURE", "tiny")
    monkeypatch.setenv("RALIS_ENCODER_WEIGHTS", "none")
    site = make_site(spec=segmenter_spec(load_settings()), strategy="entropy")
    site.label_until_trained()
    assert (site.version.strategy, site.notes) == ("entropy", "")
    key = site.version.weights_key
    assert key is not None
    assert isinstance(load(site.store.blobs.path(key)), TinySegmenter)
    site.export(tmp_path / "out", has_model=True)
    session = onnxruntime.InferenceSession(tmp_path / "out/model/segmenter.onnx")
    (found,) = session.run(None, {"image": np.zeros((1, 3, 32, 48), np.float32)})
    assert found.shape == (1, 2, 32, 48)


class Certain(TinySegmenter):
    """Cannot say how much passes with dropout disagree."""

    kind = "certain"
    offers = frozenset(("embeddings", "mirrored"))


def test_a_segmenter_that_offers_too_little_for_the_strategy_is_ranked_by_another(plug, make_site):
    plug(SEGMENTERS, "certain", Certain)
    site = make_site(spec=SegmenterSpec(1, "certain", encoder_weights=None), strategy="default")
    site.label_until_trained()
    assert site.version.strategy == "entropy"
    assert f"strategy {DEFAULT} looks at bald; the segmenter offers embeddings, mirr" in site.notes
    assert [image.error for image in site.store.images.of(site.project.id)] == [None] * 6
    assert len(site.tool.queue()) > 0


def test_a_segmenter_that_offers_probabilities_alone_begins_at_random(plug, make_site):
    plug(SEGMENTERS, "blunt", Blunt)
    site = make_site(spec=SegmenterSpec(1, "blunt", encoder_weights=None), strategy="k-center")
    settle(site.worker)
    assert site.version.strategy == "random"
    assert "strategy k-center looks at embeddings; the segmenter offers prob" in site.notes
    site.label_until_trained()
    assert site.version.strategy == "entropy"
    assert "probabilities alone: choose another strategy" in site.notes


def test_a_policy_is_not_asked_where_the_segmenter_cannot_serve_it(plug, trained, make_site):
    plug(SEGMENTERS, "blunt", Blunt)
    spec = SegmenterSpec(1, "blunt", encoder_weights=None)
    site = make_site(spec=spec, strategy="mine", policies_dir=trained)
    site.label_until_trained()
    assert site.version.strategy == "entropy"
    assert "strategy mine looks at embeddings" in site.notes


# An objective


class Dark:
    """Wants class 0 wherever an image is black."""

    weight = 2.0

    def begin(self, segmenter):
        self.pixels = segmenter.normalised(np.zeros((2, 32, 32, 3), np.uint8))

    def loss(self, segmenter, step):
        return -segmenter.logits(self.pixels).log_softmax(dim=1)[:, 0].mean()

    def after_step(self, segmenter, step):
        self.last = step

    def facts(self):
        return {"dark": {"steps": self.last}}


def test_an_objective_changes_what_a_segmenter_learns(plug):
    plug(OBJECTIVES, "dark", lambda images, config, num_classes, *, seed: Dark())
    plug(SEGMENTERS, "tiny", TinySegmenter)
    black = np.zeros((32, 32, 3), np.uint8)
    share = {}
    for besides in ((), ("dark",)):
        segmenter = build(SegmenterSpec(2, "tiny", encoder_weights=None))
        config = replace(TINY_FINETUNE, steps=20, learning_rate=1e-2)
        finetune(segmenter, [_image()], config, seed=0, besides=besides)
        share[besides] = float(segmenter.probabilities(black)[0].mean())
    assert share["dark",] > share[()] + 0.1


# A reward


def accuracy(matrix: np.ndarray) -> float:
    return float(np.trace(matrix) / matrix.sum())


def test_a_reward_trains_a_policy(plug, ralis, tiny_dataset, tmp_path):
    asked = []
    plug(SCORES, "accuracy", lambda matrix: asked.append(matrix) or accuracy(matrix))
    (tmp_path / "tiny.json").write_text(json.dumps(TINY_TRAINING))
    folders = ("--dataset", str(tiny_dataset.root), "--out", "policies/mine")
    ralis("train-policy", *folders, "--config", "tiny.json", "--reward", "accuracy")
    results = json.loads((tmp_path / "policies/mine.json").read_text())
    assert results["config"]["environment"]["reward"] == "accuracy"
    assert (tmp_path / "policies/mine.safetensors").is_file()
    assert asked[0].shape == (3, 3)


# An export format


def write_listing(images, classes, out: Path) -> None:
    """A line for each image: its name, and the share of it that is labelled."""
    lines = [f"{image.name} {(image.mask != 255).mean():.3f}\n" for image in images]
    (out / "listing.txt").write_text("".join(lines))


@pytest.fixture
def served(tmp_path) -> Iterator[str]:
    """The address of a server of the files below `tmp_path`."""
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with LocalServer(handler) as server:
        yield server.url


def test_an_export_format_is_written_by_the_command(
    plug, make_site, ralis, served, tmp_path, monkeypatch
):
    plug(FORMATS, "listing", write_listing)
    site = make_site()
    settle(site.worker)
    label_round(site.store, site.tool)
    settle(site.worker)
    uploads = tmp_path / "data" / "upload" / "1"
    uploads.mkdir(parents=True)
    for image in site.store.images.of(site.project.id):
        name = f"{image.task_id}.png"
        (uploads / name).write_bytes(site.tool.files[image.task_id][0])
        site.store.images.change(image.id, ref=f"/data/upload/1/{name}")
    monkeypatch.setenv("RALIS_DATA_DIR", "state")
    monkeypatch.setenv("LABEL_STUDIO_URL", served)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", 40 * "a")
    ralis("export", "--project", "1", "--format", "listing", "--out", "out")
    names = [line.split()[0] for line in Path("out/listing.txt").read_text().splitlines()]
    images = {label.image_id for label in site.store.labels.of(site.project.id)}
    assert len(names) == len(images) > 0
    assert Path("out/provenance.csv").is_file()


# A question to annotators


class Asking(FakeTool):
    """Reads answers as Label Studio's results hold them."""

    def answers(self, annotation, *, is_asked=False):
        return read_answers(annotation.results, is_asked=is_asked)


def test_an_answer_is_asked_for_kept_exported_and_withdrawn(plug, make_site, tmp_path):
    choices = (Choice("Blurred", "y", "yes"), Choice("Sharp", "z", "no"))
    plug(ANSWER_KINDS, "blurred", AnswerKind("blurred", choices, "sharpness"))
    brush = '<BrushLabels name="brush" toName="image"><Label value="road"/></BrushLabels>'
    config = f'<View><Image name="image" value="$image"/>{brush}</View>'
    interface = regions_config(parse_label_config(config))
    assert '<Choice value="Blurred" hotkey="y" />' in interface
    assert '<Choices name="sharpness"' in interface

    site = make_site(Asking())
    settle(site.worker)
    task = site.tool.queue()[0]
    ticked = {"from_name": "sharpness", "type": "choices", "value": {"choices": ["Blurred"]}}
    results = [{"mask": site.tool.truth(task).tolist()}, ticked]
    site.store.events.add("2.200", "ANNOTATION_CREATED", site.tool.annotate(task, results))
    settle(site.worker)
    (answer,) = site.store.answers.of(site.project.id)
    assert (answer.kind, answer.value) == ("blurred", "yes")
    site.export(tmp_path / "out")
    (row,) = csv.DictReader(io.StringIO((tmp_path / "out/provenance.csv").read_text()))
    assert (row["useful"], row["blurred"]) == ("", "yes")

    site.tool.all_annotations[2].clear()
    site.store.events.add("2.200", "ANNOTATIONS_DELETED", {"annotations": [{"id": 1}]})
    settle(site.worker)
    assert site.store.answers.of(site.project.id) == []


# A package of its own: the documentation's example


@pytest.fixture
def package(tmp_path) -> dict[str, Any]:
    """The documentation's plug-in as pip leaves it in a folder `site`; its pyproject's content."""
    section = PAGE.read_text()
    (module,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (declared,) = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    pyproject: dict[str, Any] = tomllib.loads(declared)
    project, (name,) = pyproject["project"], pyproject["tool"]["setuptools"]["py-modules"]
    brought = {
        group: "\n".join(f"{key} = {value}" for key, value in entries.items())
        for group, entries in project["entry-points"].items()
    }
    plug_in.install(tmp_path / "site", project["name"], project["version"], brought)
    (tmp_path / "site" / f"{name}.py").write_text(module)
    return pyproject


WEB_PROCESS = """
import sys
from ralis_backend.settings import load_settings
from ralis_backend.wiring import create_learner

create_learner(load_settings())
print(*sys.modules)
"""


def test_the_documentation_s_plug_in_is_checked_and_serves_every_process(
    package, tiny_dataset, tmp_path
):
    project = package["project"]
    (name,) = project["entry-points"]["ralis_backend.strategies"]
    here = str(REPOSITORY)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([here, str(tmp_path / "site")]),
        "RALIS_ENCODER_WEIGHTS": "none",
    }

    def python(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout

    ralis = partial(python, "-m", "ralis_backend.cli")
    told = ralis("check-plugin", project["name"])
    assert told == f"ok   strategy {name} ({project['name']} {project['version']})\n"
    ralis(
        "benchmark", "--dataset", str(tiny_dataset.root), "--strategies", f"random,{name}",
        "--budgets", "8", "--initial-regions", "4", "--region-size", "32x32", "--seeds", "1",
        "--updates", "3", "--jobs", "2", "--out", "results",
    )  # fmt: skip
    summary = json.loads((tmp_path / "results/summary.json").read_text())
    assert set(summary["strategies"]) == {"random", name}
    environment["RALIS_STRATEGY"] = name
    loaded = python("-c", WEB_PROCESS).split()
    assert package["tool"]["setuptools"]["py-modules"][0] in loaded
    assert not {"ralis_backend.simulation", "ralis_backend.offline"} & set(loaded)
