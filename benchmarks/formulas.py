"""Which strategy is best in the worst place: many games on many label sets, none of them long.

A game draws images, first labels, a subset or merge of the classes, the loss, the sizes of head,
batch, pool and budget; everybody who plays it shares all of that. A file per dataset in `--out`
keeps every score; called again, it plays what is missing, of the same regions and scored as these
were. `--report` sums up what lies there.

    python -m benchmarks.formulas --dataset DIR --games 20 --strategies random,coverage,entropy
    python -m benchmarks.formulas --report
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.ideas import IDEAS
from ralis_backend.core.acquisition import Strategy
from ralis_backend.core.files import write_bytes, write_json
from ralis_backend.core.intervals import mean_interval
from ralis_backend.core.policy.adaptive_inputs import PROJECT_INPUTS
from ralis_backend.core.policy.registry import find_strategy
from ralis_backend.offline.datasets import Dataset
from ralis_backend.offline.training.config import AdaptiveConfig
from ralis_backend.offline.training.rewards import SCORED_CLASSES
from ralis_backend.offline.training.scenarios import draw_scenario, play_together
from ralis_backend.offline.training.sources import digest, regions_of
from ralis_backend.offline.training.trainer import Equipment
from ralis_backend.simulation.oracles import ORACLES
from ralis_backend.simulation.points import RegionPoints

RESULTS = Path(__file__).resolve().parent / "results" / "formulas"
FRESH = RESULTS.parent / "formulas-fresh"
"""Other games of the same kind, that nobody had seen when something was chosen by the first."""
CONFIRMED = RESULTS.parent / "formulas-confirmed"
"""Games played after `coverage-diverse` was chosen by those of the two."""
LONG = RESULTS.parent / "labels" / "long"
SHARE = "0.95"
CARD = Path(__file__).resolve().parent.parent / "policies" / "any.md"
UNSEEN = "any-without"
"""The policies that were trained without the label set that they play on."""
FORMULAS = ("entropy", "margin", "bald", "bald-rarity", "clasp-pe", "coverage", "coverage-diverse")
"""Among which the default is chosen."""
BASELINE, REFERENCE = "random", "coverage"
COMPARED = {
    UNSEEN: "the policy that adapts, trained without the label set it plays on",
    "any": "the one that learned from other images of all of them",
    "any-fixed": "its best fixed mixture, the same in every project",
    "any-placebo": "trained on rewards that were dealt out at random",
    "coverage-neighbours": "where prediction and the labels of regions that look alike differ",
    "coverage-mixed": "a third of the expected classes from the labels of regions that look alike",
    "coverage-noise": "with a little chance",
    "coverage-apart": "away from what looks like earlier picks of the batch",
    "coverage-apart-64": "likewise up to 64 labelled regions, and less and less up to 128",
    "coverage-diverse": "which keeps picks of a batch from looking alike, more where "
    "labels are few",
    "coverage-both": "of BALD and entropy",
    "apart-without": "the policy whose one knob keeps picks apart, the more the fewer labels there "
    "are, trained without the label set it plays on",
    "oracle-coverage": "which knows the labels",
}
"""Players -> what they are."""
SPLIT = "d_v"
"""Images that no policy has learned from; those are `d_t`."""
CONFIG = AdaptiveConfig()


def main() -> None:
    """Play what is missing, or sum up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, action="append", default=[])
    parser.add_argument("--strategies", default=",".join((BASELINE, *FORMULAS)))
    parser.add_argument("--left-out", default="", help="policy NAME-without-DATASET, as `NAME`")
    parser.add_argument("--policies", type=Path, default=RESULTS / "policies")
    parser.add_argument("--games", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--split", default=SPLIT)
    parser.add_argument("--cache", type=Path, default=Path(".cache/points"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for folder in options.dataset:
        _play(folder, options)
    if options.report:
        files = sorted(options.out.glob("*.json"))
        played = {path.stem: json.loads(path.read_text()) for path in files}
        summaries = long_runs() if options.out == RESULTS else {}
        write_bytes(options.out / "README.md", "\n".join(report(played, summaries)).encode())
        if options.out == RESULTS:
            trained = json.loads(CARD.with_suffix(".json").read_text())
            write_bytes(CARD, "\n".join(card(played, trained)).encode())
        print(options.out / "README.md")


# Play


def _play(folder: Path, options: argparse.Namespace) -> None:
    dataset = Dataset.open(folder)
    equipment = Equipment(options.cache)
    points = regions_of([dataset], options.split, CONFIG.region_size, equipment)[dataset.name]
    path = options.out / f"{dataset.name}.json"
    facts = {"split": options.split, "regions": digest(points), "scored_classes": SCORED_CLASSES}
    kept = kept_games(path, facts)
    strategies = _strategies(dataset, options)
    for index in range(options.games):
        seed = options.first_seed + index
        game = next((it for it in kept["games"] if it["seed"] == seed), None)
        missing = {
            name: each
            for name, each in strategies.items()
            if game is None or name not in game["scores"]
        }
        if not missing:
            continue
        started = time.perf_counter()
        drawn, scores = _scores(points, missing, seed)
        if game is None:
            kept["games"].append({"seed": seed, **drawn, "scores": scores})
        else:
            game["scores"] |= scores
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, kept)
        seconds = time.perf_counter() - started
        print(f"{dataset.name} {seed}: {len(missing)} players, {seconds:.1f} s", flush=True)


def kept_games(path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a file holds, to which games may be added; `facts` and no game where there is none.

    Raises:
        ValueError: if its games are of other facts, or it does not name them: leads of one game
            would be of two kinds.
    """
    if not path.is_file():
        return {**facts, "games": []}
    kept: dict[str, Any] = json.loads(path.read_text())
    different = [
        f"{name} is {kept.get(name)!r} there, {value!r} now"
        for name, value in facts.items()
        if kept.get(name) != value
    ]
    if different:
        raise ValueError(
            f"{path} holds games of other regions, or scored in another way "
            f"({'; '.join(different)}); choose another folder with --out"
        )
    return kept


def _strategies(dataset: Dataset, options: argparse.Namespace) -> dict[str, Strategy]:
    """By name; games have other classes than the dataset, so that none may name one."""
    known = {**ORACLES, **IDEAS}
    names = [name for name in options.strategies.split(",") if name]
    found = {
        name: known[name] if name in known else _found(name, options.policies) for name in names
    }
    if options.left_out:
        policy = f"{options.left_out}-without-{dataset.name}"
        found[f"{options.left_out}-without"] = _found(policy, options.policies)
    return found


def _found(name: str, policies: Path) -> Strategy:
    return find_strategy(name, policies, ("a", "b"), CONFIG.region_size)


def _scores(
    points: RegionPoints, strategies: Mapping[str, Strategy], seed: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """What was drawn; the mean mIoU over the game of each, in percent."""
    scenario = draw_scenario([points], CONFIG, np.random.default_rng(seed))
    scores = 100 * play_together(scenario, list(strategies.values()))[0].mean(axis=1)
    rules = scenario.rules
    facts = {
        "classes": scenario.pool.class_pixels.shape[1] - 1,
        "class_weight_power": scenario.head.class_weight_power,
        "initial_regions": len(scenario.initial),
        "picks": rules.steps * rules.regions_per_step,
        "is_whole": rules.is_whole,
    }
    return facts, {
        name: round(float(each), 4) for name, each in zip(strategies, scores, strict=True)
    }


# Sum up


def report(
    played: Mapping[str, Mapping[str, Any]], summaries: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """The lines of `README.md`; `summaries` of `ralis benchmark`, by their folders."""
    names = _names(played)
    yield "# Which strategy is best in the worst place"
    yield ""
    counts = {name: len(each["games"]) for name, each in played.items()}
    yield (
        f"{sum(counts.values())} games of the fast simulation on {len(played)} label sets, drawn "
        "as `benchmarks/formulas.py` says; grey, cells and streets are generated. Points of mIoU "
        "over the game ahead of a random choice, with 95 % intervals over games; bold is behind "
        f"it. {_scoring(played)}"
    )
    yield ""
    yield from _came_out(played, names)
    yield ""
    yield from _table(played, names)
    yield ""
    yield "## Regret"
    yield ""
    yield (
        "How far a strategy's mean lead over random is behind the best formula's on that label "
        "set, in points: 0 is the best formula."
    )
    yield ""
    yield from _regrets(played, names)
    yield ""
    yield from _left_out(played)
    yield ""
    if summaries:
        yield from _needed(summaries)
        yield ""
    yield "## By loss, and by number of classes"
    yield ""
    yield from _by_kind(played, names)
    yield ""


def _scoring(played: Mapping[str, Mapping[str, Any]]) -> str:
    """Over which classes the mIoU is; `ValueError` where that is not the same in all."""
    scored = {each.get("scored_classes", "before there was a name") for each in played.values()}
    if len(scored) > 1:
        raise ValueError(
            f"games are scored in several ways ({', '.join(sorted(scored))}) and cannot be summed "
            "up together; keep each in a folder of its own"
        )
    if scored == {SCORED_CLASSES}:
        return "mIoU is over the classes that the held-out regions of a game show."
    return (
        "A class that the held-out regions of a game do not show, and that was predicted, counted "
        "as one with an IoU of 0."
    )


def _came_out(played: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Iterator[str]:
    """What the tables say, in sentences."""
    worst = {name: max(regrets(played, name).values()) for name in names}
    formulas = sorted((it for it in FORMULAS if it in worst), key=lambda it: worst[it])
    told = ", ".join(f"`{name}` {worst[name]:.2f}" for name in formulas)
    yield f"- Worst regret of the formulas, in points: {told}."
    for name, text in COMPARED.items():
        if name not in names:
            continue
        yield (
            f"- `{name}`, {text}: {ahead(played, name)} points ahead of `{REFERENCE}` on average "
            f"over the label sets, worst regret {worst[name]:.2f}."
        )


def _names(played: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Players of every game of every set, the best on average first."""
    games = [game for each in played.values() for game in each["games"]]
    names = [name for name in games[0]["scores"] if all(name in it["scores"] for it in games)]
    names.remove(BASELINE)
    return sorted(names, key=lambda name: -np.mean([_mean(it, name) for it in played.values()]))


def leads(of_set: Mapping[str, Any], name: str, over: str = BASELINE) -> np.ndarray:
    """(G,) points of mIoU ahead of another strategy, one for each game."""
    return np.array([game["scores"][name] - game["scores"][over] for game in of_set["games"]])


def _mean(of_set: Mapping[str, Any], name: str) -> float:
    return float(leads(of_set, name).mean())


def regrets(played: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, float]:
    """Of each label set: points behind the best formula, on average over its games."""
    formulas = [it for it in FORMULAS if it in _names(played)]
    return {
        dataset: max(_mean(each, it) for it in formulas) - _mean(each, name)
        for dataset, each in played.items()
    }


def _table(played: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Iterator[str]:
    yield f"| strategy | {' | '.join(played)} | mean | ahead of {REFERENCE}, mean |"
    yield "| --- " * (len(played) + 3) + "|"
    for name in names:
        cells = [_interval(leads(each, name)) for each in played.values()]
        mean = np.mean([_mean(each, name) for each in played.values()])
        yield f"| {name} | {' | '.join(cells)} | {mean:+.2f} | {ahead(played, name)} |"
    best = {
        dataset: np.max([leads(each, it) for it in FORMULAS if it in names], axis=0)
        for dataset, each in played.items()
    }
    cells = [_interval(each) for each in best.values()]
    mean = np.mean([each.mean() for each in best.values()])
    title = "the best formula of each game, known afterwards"
    yield f"| {title} | {' | '.join(cells)} | {mean:+.2f} | |"


def _interval(values: np.ndarray) -> str:
    low, high = mean_interval(values)
    text = f"{values.mean():+.2f} ({low:+.2f} to {high:+.2f})"
    return f"**{text}**" if values.mean() < 0 else text


def _mean_of_sets(by_set: Sequence[np.ndarray]) -> str:
    """Mean over label sets, each counted alike, with the interval of its games' scatter."""
    mean = float(np.mean([each.mean() for each in by_set]))
    errors = [each.var(ddof=1) / len(each) for each in by_set if len(each) > 1]
    half = 1.96 * float(np.sqrt(np.sum(errors))) / len(by_set)
    return f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"


def _regrets(played: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Iterator[str]:
    yield f"| strategy | {' | '.join(played)} | worst | behind random beyond noise on |"
    yield "| --- " * (len(played) + 3) + "|"
    found = {name: regrets(played, name) for name in names}
    for name in sorted(found, key=lambda it: max(found[it].values())):
        cells = [f"{value:.2f}" for value in found[name].values()]
        behind = [it for it, each in played.items() if mean_interval(leads(each, name))[1] < 0]
        worst = max(found[name].values())
        yield f"| {name} | {' | '.join(cells)} | {worst:.2f} | {', '.join(behind) or 'none'} |"


def _left_out(played: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Each set's default, chosen on the others."""
    yield (
        "Leaving one label set out, the formula with the smallest worst regret on the others, and "
        "its regret on the one that was left out:"
    )
    yield ""
    formulas = [it for it in FORMULAS if it in _names(played)]
    for left_out, own in played.items():
        others = {name: each for name, each in played.items() if name != left_out}
        if not others:
            continue
        chosen = min(formulas, key=lambda it: max(regrets(others, it).values()))
        regret = max(_mean(own, it) for it in formulas) - _mean(own, chosen)
        yield f"- {left_out}: `{chosen}`, {regret:.2f}"


def long_runs() -> dict[str, dict[str, Any]]:
    """What `ralis benchmark` made of whole label sets, by folder."""
    files = sorted(LONG.glob("unseen-*/summary.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in files}


def _needed(summaries: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Regions that strategies need on whole label sets, and the worst of their ratios."""
    yield "## Regions needed"
    yield ""
    yield (
        "On the label sets as they are, from 48 random regions on (`ralis benchmark`; a reference "
        f"of all labels, of which the mean curve reaches {100 * float(SHARE):.0f} %; 8 paired "
        "seeds, 95 % intervals). *Unseen* is the policy trained without that label set."
    )
    yield ""
    names = ("random", "entropy", "bald-rarity", "coverage", UNSEEN)
    yield f"| label set, loss | {' | '.join(names)} |"
    yield "| --- " * (len(names) + 1) + "|"
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for folder, summary in summaries.items():
        dataset, power = folder.removeprefix("unseen-").split("-weight-")
        found = {
            name: summary["strategies"][f"{name}-{dataset}" if name == UNSEEN else name]
            for name in names
        }
        needed = {name: each["regions_to"][SHARE] for name, each in found.items()}
        known = [each["value"] for each in needed.values() if each["value"] is not None]
        for name, each in needed.items():
            ratios[name].append((each["value"] or float("inf")) / min(known))
        cells = [_regions(each) for each in needed.values()]
        yield (
            f"| [{dataset}](../labels/long/{folder}/report.md), "
            f"{'plain' if float(power) == 0 else 'weighted'} | {' | '.join(cells)} |"
        )
    cells = [
        "not reached" if max(each) == float("inf") else f"{max(each):.2f}"
        for each in ratios.values()
        if each
    ]
    yield f"| worst, over the best of its row | {' | '.join(cells)} |"


def _regions(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "not reached"
    low, high = ("–" if found[key] is None else f"{found[key]:.0f}" for key in ("low", "high"))
    return f"{found['value']:.0f} ({low} to {high})"


def _by_kind(played: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Iterator[str]:
    kinds = {
        "plain loss": lambda game: game["class_weight_power"] == 0,
        "weighted loss": lambda game: game["class_weight_power"] > 0,
        "2 to 4 classes": lambda game: game["classes"] <= 4,
        "5 and more": lambda game: game["classes"] > 4,
        "under 60 first labels": lambda game: game["initial_regions"] < 60,
        "60 and more": lambda game: game["initial_regions"] >= 60,
        "best of pools": lambda game: not game["is_whole"],
        "best of all": lambda game: game["is_whole"],
    }
    games = [game for each in played.values() for game in each["games"]]
    parts = {kind: [game for game in games if test(game)] for kind, test in kinds.items()}
    heads = (f"{kind} ({len(part)})" for kind, part in parts.items())
    yield f"| ahead of random | {' | '.join(heads)} |"
    yield "| --- " * (len(parts) + 1) + "|"
    for name in names:
        cells = [_interval(leads({"games": part}, name)) if part else "" for part in parts.values()]
        yield f"| {name} | {' | '.join(cells)} |"


# The card of `any`


def card(played: Mapping[str, Mapping[str, Any]], trained: Mapping[str, Any]) -> Iterator[str]:
    """The lines of `policies/any.md`."""
    config, cost = trained["config"], trained["labelled_regions"]
    scored = ""
    if "scored_classes" not in trained:
        scored = (
            "; a class that these images do not show, and that was predicted, counted as one with "
            "an IoU of 0, which trainings no longer do"
        )
    yield "# any"
    yield ""
    yield (
        "`coverage` with eight knobs, which may differ by what kind of project it is; training "
        "left them nearly the same in all (last line). Use it with `RALIS_STRATEGY=any`. With "
        "weights of zero it is `coverage`; picks of a batch see each other as they do there."
    )
    yield ""
    yield "- **For:** any label set, any region size, any state."
    yield (
        f"- **Trained** on `d_t` of {', '.join(cost)} (the last three are generated), by policy "
        f"gradient on whole games of the fast simulation: {config['games']} of each, with "
        f"{config['pairs']} antithetic pairs of randomly turned knobs, of random images, first "
        "labels, losses, heads, sizes of batch, pool and budget, and subsets or merges of the "
        "classes. Reward: mean mIoU over the game on images held out of it, over what choosing is "
        f"worth there{scored}. Seed {trained['seed']}."
    )
    yield (
        f"- **What it cost in labels:** {sum(cost.values())} regions of 90 x 80 pixels. Every "
        "setting stands in `any.json`; the ranges of its inputs, for the drift check (a project "
        "that lies outside one by more than half of it is refused), in the file."
    )
    yield "- **Not chosen** among several: one seed was trained."
    yield ""
    yield "## What it learned"
    yield ""
    yield (
        "Each knob in an average project, and by how much one deviation of an input moves it most "
        "(`KNOBS` in `ralis_backend/core/policy/adaptive.py` says what they do):"
    )
    yield ""
    yield "| knob | setting | moved most by |"
    yield "| --- | --- | --- |"
    for knob, (setting, *moves) in trained["gains"].items():
        most = int(np.argmax(np.abs(moves)))
        yield f"| {knob} | {setting:+.2f} | {PROJECT_INPUTS[most]}, {moves[most]:+.3f} |"
    yield ""
    chosen = next(it for it in trained["lengths"] if it["length"] == trained["length"])
    ridges = ", ".join(f"{it['cosine']:.3f} ({it['ridge']:g})" for it in trained["fits"])
    yield (
        "What a pair of games differs by on a label set that was left out, and what the gradient "
        f"foretold, have a cosine of (ridge on what depends on the project) {ridges}. "
        f"Followed {trained['length']:g} deviations far, it led `coverage` in other games of the "
        f"same sets by {chosen['lead']:+.2f} ({chosen['low']:+.2f} to {chosen['high']:+.2f}) of "
        "what choosing is worth there."
    )
    yield ""
    yield "## Scores"
    yield ""
    yield (
        "Mean mIoU over games on images that nobody learned from (`d_v`), in points ahead, with "
        "95 % intervals over games; bold is behind. *Unseen*: a policy trained without that label "
        "set. [All strategies](../benchmarks/results/formulas/README.md)."
    )
    yield ""
    heads = ("unseen, over random", "unseen, over coverage", "any, over coverage")
    yield f"| label set | games | {' | '.join(heads)} |"
    yield "| --- " * (2 + len(heads)) + "|"
    for dataset, each in played.items():
        cells = (
            leads(each, UNSEEN),
            leads(each, UNSEEN, REFERENCE),
            leads(each, "any", REFERENCE),
        )
        yield f"| {dataset} | {len(each['games'])} | {' | '.join(map(_interval, cells))} |"
    over = [
        _mean_of_sets([leads(each, name, other) for each in played.values()])
        for name, other in ((UNSEEN, BASELINE), (UNSEEN, REFERENCE), ("any", REFERENCE))
    ]
    yield f"| mean | | {' | '.join(over)} |"
    yield ""
    yield "## What it is not good for"
    yield ""
    yield (
        "- A trained network's behaviour: it learned on small heads over frozen features. The "
        "backend lets it rank a project only after it has held its own on that project's labels."
    )
    low, high = config["initial_regions"]
    most = high + max(config["steps"]) * max(config["regions_per_step"])
    yield f"- Other numbers of labels than those of its games, {low} to {most} regions."
    yield (
        f"- Replacing `{REFERENCE}` unseen: it is {over[1]} points ahead of it on average. The "
        "gradient leads away from it, but a step that way soon costs what it gains."
    )
    foretold = {it["ridge"]: it["cosine"] for it in trained["fits"]}
    if max(foretold, key=lambda ridge: foretold[ridge]) == max(foretold):
        yield (
            "- Adapting: what was foretold of a label set that was left out was foretold best by "
            "knobs that are nearly the same in every project (the largest ridge), and so they are. "
            f"`any-fixed`, where they are the same, is {ahead(played, 'any-fixed')} points ahead "
            f"of `{REFERENCE}`."
        )
    yield ""


def ahead(played: Mapping[str, Mapping[str, Any]], name: str) -> str:
    """How far a strategy is ahead of `coverage`, mean over label sets, with its interval."""
    return _mean_of_sets([leads(each, name, REFERENCE) for each in played.values()])


if __name__ == "__main__":
    main()
