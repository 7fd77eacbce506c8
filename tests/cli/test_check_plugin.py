from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ralis_backend.cli import app
from ralis_backend.cli.conformance import KINDS, faults_of
from ralis_backend.cli.conformance.labels import ANSWER_TESTS, FORMAT_TESTS
from ralis_backend.cli.conformance.segmenters import OBJECTIVE_TESTS, SEGMENTER_TESTS
from ralis_backend.cli.conformance.strategies import TESTS as STRATEGY_TESTS
from ralis_backend.cli.conformance.training import POLICY_TESTS, PRESET_TESTS, REWARD_TESTS
from ralis_backend.core.acquisition import Needs, Scorer
from ralis_backend.core.acquisition.uncertainty import Entropy, mean_entropy
from ralis_backend.core.segmenter import SEGMENTERS
from ralis_backend.core.segmenter.smp import SmpSegmenter
from ralis_backend.offline.training.ralis import RalisTrainer
from ralis_backend.offline.training.registry import TRAINERS
from ralis_backend.online.answers import AnswerKind, Choice
from tests import plug_in
from tests.core.learning.test_loop import Brighter
from tests.tiny_segmenter import TinySegmenter

BUILT_IN = [
    pytest.param(kind, name, id=f"{kind.registry.kind} {name}")
    for kind in KINDS
    for name in kind.registry
    if name != SmpSegmenter.kind  # its networks are many, see below
]


@pytest.mark.parametrize(("kind", "name"), BUILT_IN)
def test_what_comes_with_the_backend_conforms(kind, name):
    assert faults_of(name, kind.registry[name], kind.tests) == []


def test_the_backend_s_own_segmenter_conforms():
    def fpn(spec, *, seed=0, device="cpu"):
        return SmpSegmenter(replace(spec, architecture="FPN"), seed=seed, device=device)

    assert faults_of(SmpSegmenter.kind, fpn, SEGMENTER_TESTS) == []


class Mine(Entropy):
    def __init__(self, **changes: object) -> None:
        super().__init__("mine", mean_entropy)
        vars(self).update(changes)


class Wide(Mine):
    def scores(self, state, actions):
        return actions.entropy.astype(np.float64)


class Infinite(Mine):
    def scores(self, state, actions):
        return np.log(np.zeros(len(actions), np.float32))


class Greedy(Mine):
    def scores(self, state, actions):
        return actions.bald


class Moody(Mine):
    calls = 0

    def scores(self, state, actions):
        self.calls += 1
        return actions.entropy + np.float32(self.calls)


class Relative(Mine):
    is_pointwise = True

    def scores(self, state, actions):
        return actions.entropy - actions.entropy.mean() if len(actions) else actions.entropy


class Silent(Mine):
    def reasons(self, state, actions, class_names):
        return []


class Verbose(Mine):
    def reasons(self, state, actions, class_names):
        return ["because " * 40] * len(actions)


class Aimed(Scorer):
    name = "mine"
    needs = Needs(frozenset(("class_probabilities",)), has_target_class=True)
    is_pointwise = True

    def scores(self, state, actions):
        return actions.class_probabilities[:, state.target_class]


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(
    ("strategy", "wrong", "mended"),
    [
        (Mine, "it is the class Mine", "`MINE = Mine()`"),
        (object(), "it has no name, needs", "derive it from Scorer"),
        (Mine(name="other"), "its name is 'other', expected 'mine'", "rename"),
        (Mine(needs=Needs(has_truth=True)), "needs the truth", "has_truth=False"),
        (Wide(), "dtype float64, expected (12,) and float32", "np.asarray(scores, np.float32)"),
        (Infinite(), "a score is not finite", "guard logarithms"),
        (Greedy(), "bald was not described", "names it among its needs"),
        (Moody(), "scores differ between two calls", "draw from state.rng alone"),
        (Relative(), "is_pointwise is True, but", "set it to False"),
        (Silent(), "12 regions have the reasons []", "a list of 12 texts"),
        (Verbose(), "a reason is 'because because", "1 to 150 characters"),
    ],
)
def test_a_strategy_that_breaks_its_word_is_told_what_to_mend(strategy, wrong, mended):
    told = "\n".join(faults_of("mine", strategy, STRATEGY_TESTS))
    assert wrong in told
    assert mended in told


@pytest.mark.parametrize("strategy", [Mine(), Aimed()])
def test_a_strategy_that_keeps_its_word_passes(strategy):
    assert faults_of("mine", strategy, STRATEGY_TESTS) == []


class Boastful(TinySegmenter):
    offers = TinySegmenter.offers | {"bald"}

    def forward_pass(self, image, maps=()):
        return super().forward_pass(image, set(maps) - {"bald"})


class Cut(TinySegmenter):
    def forward_pass(self, image, maps=()):
        seen = super().forward_pass(image, maps)
        height = image.shape[0] // self.stride * self.stride
        return replace(seen, probabilities=seen.probabilities[:, :height])


class Unnormalised(TinySegmenter):
    def forward_pass(self, image, maps=()):
        seen = super().forward_pass(image, maps)
        return replace(seen, probabilities=2 * seen.probabilities)


class Restless(TinySegmenter):
    def build(self, spec):
        torch.default_generator.seed()
        return super().build(spec)


class Frozen(TinySegmenter):
    def build(self, spec):
        model, _ = super().build(spec)
        return model.requires_grad_(False), False


class Forgetful(TinySegmenter):
    def state(self):
        return {}

    def restore(self, tensors):
        return None


@pytest.fixture
def tiny(monkeypatch) -> Callable[[type[TinySegmenter]], list[str]]:
    def faults(kind: type[TinySegmenter]) -> list[str]:
        monkeypatch.setitem(SEGMENTERS, "tiny", kind)
        return faults_of("tiny", kind, SEGMENTER_TESTS)

    return faults


def test_a_segmenter_that_is_no_smp_network_passes(tiny):
    assert tiny(TinySegmenter) == []


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Boastful, "offers bald, but its forward pass holds none"),
        (Cut, "pad to the stride"),
        (Unnormalised, "sum to 2.000, expected 1; end with softmax"),
        (Restless, "of two segmenters with the same seed differ"),
        (Frozen, "does not require grad"),
        (Forgetful, "a training step changed no weight"),
    ],
)
def test_a_segmenter_that_breaks_its_word_is_told_what_to_mend(tiny, kind, wrong):
    assert wrong in "\n".join(tiny(kind))


class Constant(Brighter):
    def loss(self, segmenter, step):
        return torch.tensor(1.0)


class Whole(Brighter):
    def loss(self, segmenter, step):
        return super().loss(segmenter, step).expand(2)


@pytest.mark.parametrize(
    ("made", "wrong"),
    [
        (Brighter(weight=0.0), "its weight is 0.0, expected a positive number"),
        (Constant(), "its loss has no gradient"),
        (Whole(), "expected a tensor with one finite number"),
        (object(), "the objective has no weight, begin, loss, after_step"),
    ],
)
def test_an_objective_that_breaks_its_word_is_told_what_to_mend(made, wrong):
    def factory(images, config, num_classes, *, seed):
        return made

    assert wrong in "\n".join(faults_of("mine", factory, OBJECTIVE_TESTS))


def test_an_objective_that_keeps_its_word_passes():
    def factory(images, config, num_classes, *, seed):
        return Brighter()

    assert faults_of("mine", factory, OBJECTIVE_TESTS) == []


@dataclass(frozen=True)
class Orphan:
    episodes: int = 1


@dataclass(frozen=True)
class Misled:
    episodes: int = 1


class Elsewhere(RalisTrainer):
    splits = ("train",)


@pytest.fixture
def misled(monkeypatch) -> Misled:
    monkeypatch.setitem(TRAINERS, Misled, Elsewhere())
    return Misled()


def write_nothing(images, classes, out):
    list(images)


def write_beside(images, classes, out):
    (out.parent / "beside.txt").write_text("here")
    (out / "inside.txt").write_text("there")


def asked(*choices: Choice, name: str = "mine", control: str = "mine") -> AnswerKind:
    return AnswerKind(name, choices, control)


@pytest.mark.parametrize(
    ("thing", "tests", "wrong"),
    [
        (lambda path, name: object(), POLICY_TESTS, "a file of another kind is taken for a policy"),
        (lambda path, name: {}["kind"], POLICY_TESTS, "refused with KeyError: 'kind'; expected"),
        (3, POLICY_TESTS, "it is 3, expected what loads a policy"),
        (lambda matrix: float("nan"), REWARD_TESTS, "it gives nan for the confusion matrix"),
        (lambda matrix: -float(np.trace(matrix)), REWARD_TESTS, "turn the sign"),
        (Orphan(), PRESET_TESTS, "no trainer takes a Orphan"),
        (Orphan, PRESET_TESTS, "expected an object of a frozen dataclass"),
        (write_nothing, FORMAT_TESTS, "it wrote 0 files into the folder"),
        (write_beside, FORMAT_TESTS, "['beside.txt'] beside it"),
        (asked(), ANSWER_TESTS, "expected an AnswerKind"),
        (asked(Choice("Yes", "m", 1), name="other"), ANSWER_TESTS, "its name is 'other'"),
        (asked(Choice("Yes", "b", 1)), ANSWER_TESTS, "the key 'b' of 'Yes' is taken"),
        (asked(Choice("Yes", "n", 1)), ANSWER_TESTS, "the key 'n' of 'Yes' is taken"),
        (
            asked(Choice("Useful", "m", 1), control="feedback"),
            ANSWER_TESTS,
            "the text 'Useful' is taken in control 'feedback'",
        ),
        (asked(Choice("Yes", "m", {1, 2})), ANSWER_TESTS, "expected a JSON value"),
        (asked(Choice("Yes", "m", None)), ANSWER_TESTS, "is read as no answer"),
    ],
)
def test_anything_else_that_breaks_its_word_is_told_what_to_mend(thing, tests, wrong):
    assert wrong in "\n".join(faults_of("mine", thing, tests))


def test_a_trainer_that_asks_for_a_split_that_no_dataset_has_is_told(misled):
    told = faults_of("mine", misled, PRESET_TESTS)
    assert "splits is ('train',), expected some of d_s, d_t" in told[0]


STRATEGIES_OF_OTHERS = """
{imports}
from ralis_backend.core.acquisition.uncertainty import Entropy, mean_entropy

GOOD = Entropy("good", mean_entropy)
BAD = Entropy("other", mean_entropy)


class Policy:
    @classmethod
    def load(cls, path, name):
        from ralis_backend.core.weights import WeightsError

        raise WeightsError("no policy")
"""


TRAINER = """
from dataclasses import dataclass

from ralis_backend.offline.training.registry import register


@dataclass(frozen=True)
class Config:
    games: int = 1


class Trainer:
    takes_several_datasets = False
    splits = ("d_t",)

    def configured(self, config, options):
        return config

    def prepare(self, config, datasets, equipment):
        raise ValueError("nothing to train")


register(Config, Trainer())
OWN = Config()
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch) -> Any:
    """Make a package as pip leaves it, whose entry points are strategies."""
    made: list[str] = []

    def installed(package: str, entries: str, imports: str = "") -> None:
        module = package.replace("-", "_")
        made.append(module)
        (tmp_path / f"{module}.py").write_text(STRATEGIES_OF_OTHERS.format(imports=imports))
        plug_in.install(tmp_path, package, "1.0", {"ralis_backend.strategies": entries})

    monkeypatch.syspath_prepend(tmp_path)
    yield installed
    for module in made:
        sys.modules.pop(module, None)


@pytest.fixture
def check(monkeypatch) -> Callable[..., tuple[int, str]]:
    """Run the command where things of other packages are looked for anew."""
    known = [(kind.registry, set(kind.registry)) for kind in KINDS]

    def run(*arguments: str) -> tuple[int, str]:
        for registry, _ in known:
            registry._is_complete = False
        done = CliRunner().invoke(app, ["check-plugin", *arguments])
        for registry, names in known:
            for name in set(registry) - names:
                del registry[name]
        return done.exit_code, done.output + str(done.exception or "")

    return run


@pytest.mark.e2e
def test_a_good_package_passes_and_a_broken_one_fails_with_every_fault(install, check):
    install("plug-good", "good = plug_good:GOOD")
    install(
        "plug-bad",
        "bad = plug_bad:BAD\nentropy = plug_bad:GOOD\ngone = plug_bad:GONE",
    )
    code, told = check("Plug_Good")
    assert code == 0
    assert told == "ok   strategy good (plug-good 1.0)\n"
    code, told = check("plug-bad")
    assert code == 1
    assert "FAIL strategy bad (plug-bad 1.0)\n     -> its name is 'other', expected 'bad'" in told
    assert "there is a strategy 'entropy' already, and yours is left out" in told
    assert "plug_bad:GONE cannot be loaded: AttributeError" in told
    assert "3 of 3 to repair" in told
    code, told = check()
    assert code == 1
    assert "3 of 4 to repair" in told


@pytest.mark.e2e
def test_a_policy_s_loader_may_be_a_method_of_its_class(install, check):
    policies = "[ralis_backend.policies]\nmine = plug_policy:Policy.load"
    install("plug-policy", f"good = plug_policy:GOOD\n{policies}")
    code, told = check("plug-policy")
    assert code == 0, told
    assert "ok   kind of policy mine (plug-policy 1.0)" in told


@pytest.mark.e2e
def test_a_preset_brings_its_trainer_along_whatever_is_loaded_first(install, check, tmp_path):
    install("plug-train", "good = plug_train:GOOD\n[ralis_backend.presets]\nown = plug_train:OWN")
    with (tmp_path / "plug_train.py").open("a") as module:
        module.write(TRAINER)
    with patch.dict(TRAINERS):
        code, told = check("plug-train")
    assert code == 1
    assert "ok   preset own (plug-train 1.0)" in told
    assert "FAIL strategy good (plug-train 1.0)\n     -> importing plug_train loads" in told


@pytest.mark.e2e
def test_what_the_web_process_loads_imports_no_training(install, check):
    install("plug-heavy", "good = plug_heavy:GOOD", "import ralis_backend.offline.golden")
    code, told = check("plug-heavy")
    assert code == 1
    assert "importing plug_heavy loads ralis_backend.offline, which the web process must" in told


def test_a_package_without_plug_ins_and_none_at_all_are_told(check):
    code, told = check()
    assert (code, told) == (0, "no plug-in is installed\n")
    code, told = check("numpy")
    assert code == 1
    assert "package 'numpy' brings nothing along; install it" in told
    assert "ralis_backend.answers" in told
