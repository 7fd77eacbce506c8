"""`ralis benchmark`: strategies compared on a labelled dataset, paired by seed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ralis_backend.cli.benchmark_display import Display, print_table
from ralis_backend.cli.options import LARGEST_SEED, strategy_names
from ralis_backend.core.text import printable

if TYPE_CHECKING:
    from ralis_backend.core.acquisition import Strategy
    from ralis_backend.offline.benchmark.run import Entrant
    from ralis_backend.simulation.game import GameRules
    from ralis_backend.simulation.oracles import Oracle

DatasetFolder = Annotated[
    Path, typer.Option("--dataset", help="Images, masks, classes.json and splits.json.")
]
Strategies = Annotated[
    str,
    typer.Option(
        help="Names, separated by commas, one that has a comma in quotes; oracles are upper bounds."
    ),
]
Seeds = Annotated[int, typer.Option(min=1, help="How many seeds, from --first-seed on.")]
FirstSeed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="The first one.")]
Budgets = Annotated[str, typer.Option(help="Labelled regions, rising, separated by commas.")]
Fidelity = Annotated[
    str, typer.Option(help="fast: a head on a frozen encoder; full: the segmenter itself, hours.")
]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Games at a time; by default and at most one a core."),
]
Initial = Annotated[str, typer.Option(help="How the first regions are chosen: random or k-center.")]
InitialRegions = Annotated[
    int | None, typer.Option(min=1, help="How many; by default 48, or the least budget.")
]
PerStep = Annotated[int, typer.Option(min=1, help="Regions labelled at a step, K.")]
PoolSize = Annotated[int, typer.Option(min=1, help="Each is the best of so many, N.")]
RegionSize = Annotated[str, typer.Option(help="Height x width of a region in pixels.")]
Weighting = Annotated[
    float,
    typer.Option(min=0, max=1, help="The loss weighs a class by its frequency to minus this."),
]
Pool = Annotated[str, typer.Option(help="Split whose regions are labelled.")]
MeasureOn = Annotated[
    str, typer.Option(help="Split on which segmenters are measured; d_r to choose a policy.")
]
Updates = Annotated[
    int | None,
    typer.Option(
        min=3,
        help="Updates before each measurement, by default 600 (fast) or 400 (full); a third at the "
        "start, a tenth at each step.",
    ),
]
TestImages = Annotated[
    int | None, typer.Option(min=1, help="Full: measure on so many images, evenly spaced.")
]
ImageScale = Annotated[float, typer.Option(help="Full: show images at this scale, as 0.5.")]
Learner = Annotated[
    str,
    typer.Option(help="Full: what segmenters learn from: paint, or paint+unlabelled pixels."),
]
Out = Annotated[Path, typer.Option(help="Folder of the results; what is there is not repeated.")]
Policies = Annotated[Path, typer.Option(help="Folder of trained policies.")]
Cache = Annotated[Path, typer.Option(help="Folder for encoder features; safe to delete.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]

DEFAULT_UPDATES = {"fast": 600, "full": 400}


def benchmark(
    context: typer.Context,
    dataset: DatasetFolder,
    out: Out,
    strategies: Strategies = "random,entropy,margin",
    seeds: Seeds = 3,
    first_seed: FirstSeed = 0,
    budgets: Budgets = "144,240,480,960,1440,1920",
    fidelity: Fidelity = "fast",
    jobs: Jobs = None,
    initial: Initial = "random",
    initial_regions: InitialRegions = None,
    regions_per_step: PerStep = 24,
    pool_size: PoolSize = 10,
    region_size: RegionSize = "90x80",
    class_weight_power: Weighting = 0.0,
    pool: Pool = "d_v",
    measure_on: MeasureOn = "test",
    updates: Updates = None,
    test_images: TestImages = None,
    image_scale: ImageScale = 1.0,
    learner: Learner = "paint",
    policies: Policies = Path("policies"),
    cache: Cache = Path(".cache/points"),
    device: Device = "auto",
) -> None:
    """Play the labelling game with each strategy, and measure what the segmenter learned."""
    import torch
    from rich.console import Console

    from ralis_backend.offline.benchmark.arenas import ArenaConfig, check_arena, open_arena
    from ralis_backend.offline.benchmark.clicks import region_clicks
    from ralis_backend.offline.benchmark.run import Contest, check_names, run
    from ralis_backend.offline.datasets import Dataset
    from ralis_backend.settings import load_settings
    from ralis_backend.wiring import find_device, segmenter_spec

    torch.set_num_threads(1)
    console, settings, size = Console(), load_settings(), _size(region_size)
    names = strategy_names(strategies)
    check_names(names)  # features of a large dataset take a while
    rules = _rules(
        _numbers(budgets), initial, initial_regions, regions_per_step, pool_size,
        updates or DEFAULT_UPDATES.get(fidelity, 0),
    )  # fmt: skip
    with console.status("Reading the dataset") as status:
        source = Dataset.open(dataset)
        config = ArenaConfig(
            source, size, fidelity, pool, measure_on, class_weight_power, cache,
            segmenter_spec(settings),
            test_images, image_scale, learner, find_device(device),
        )  # fmt: skip
        check_arena(config)
        find = partial(_find, policies=policies, classes=source.class_names, region_size=size)
        looks_twice = any([find(name).needs.looks_twice for name in names])
        config = replace(config, looks_twice=looks_twice)
        open_arena(config, status.update)  # computes the features, if they are not cached
    contest = Contest(partial(open_arena, config), find, rules, out)
    jobs = min(jobs or _num_cores(), _num_cores())
    with Display(console, jobs) as display:
        try:
            content = run(
                contest,
                [_entrant(name, policies) for name in names],
                range(first_seed, first_seed + seeds),
                partial(region_clicks, source.split(pool), size, cache),
                class_names=source.class_names,
                command=_command(context.params),
                jobs=jobs,
                on_progress=display.show,
                on_start=partial(display.start, rules),
            )
        except KeyboardInterrupt:
            text = f"Stopped. Finished games are in {out}; the same command goes on."
            console.print(printable(text), markup=False)
            raise typer.Exit(130) from None
    print_table(console, content)
    text = f"mIoU on {measure_on} in %. {out}/report.md says what was done and came out."
    console.print(printable(text), markup=False)


def _find(
    name: str, policies: Path, classes: tuple[str, ...], region_size: tuple[int, int]
) -> Strategy | Oracle:
    from ralis_backend.core.policy.registry import check_strategy, find_strategy
    from ralis_backend.simulation.oracles import ORACLES

    if name in ORACLES:
        return ORACLES[name]
    try:
        check_strategy(name, policies)
    except ValueError as error:
        oracles = ", ".join(ORACLES)
        raise ValueError(f"{error}, or of {oracles}, which know the labels") from error
    return find_strategy(name, policies, classes, region_size)


def _rules(
    budgets: tuple[int, ...],
    initial: str,
    initial_regions: int | None,
    regions_per_step: int,
    pool_size: int,
    updates: int,
) -> GameRules:
    from ralis_backend.simulation.game import GameRules

    return GameRules(
        budgets,
        initial,
        initial_regions or min(GameRules.initial_regions, budgets[0]),
        regions_per_step,
        pool_size,
        updates_per_step=max(1, updates // 10),
        initial_updates=updates // 3,
        final_updates=updates,
    )


def _entrant(name: str, policies: Path) -> Entrant:
    """A strategy, whose name it is, and what a policy of that name cost, from its card."""
    import json

    from ralis_backend.core.acquisition import STRATEGIES
    from ralis_backend.core.policy.registry import own_name, policy_file
    from ralis_backend.offline.benchmark.run import Entrant
    from ralis_backend.simulation.oracles import ORACLES

    if name in ORACLES:
        return Entrant(name, None)
    if own_name(name) != name:
        return Entrant(name, stands_for=own_name(name))
    plain = name.partition(":")[0]  # without the class that it looks for
    file = policy_file(plain, policies)
    if plain in STRATEGIES or not file.is_file():
        return Entrant(name)
    card = file.with_suffix(".json")
    if not card.is_file():
        raise ValueError(
            f"{card} does not exist; it says how many labels the policy '{name}' was trained "
            "with, and `ralis train-policy` writes it beside the policy"
        )
    return Entrant(name, _label_cost(json.loads(card.read_text())), file)


def _label_cost(card: Mapping[str, Any]) -> int:
    """Labelled regions that a policy was trained with, from its card.

    Of a policy for one label set those of state set, training pool and reward set.
    """
    if "labelled_regions" in card:
        return sum(card["labelled_regions"].values())
    images, regions = card["num_images"], card["num_regions"]
    per_image: float = (regions["pool"] + regions["state_set"]) / (images["d_t"] + images["d_s"])
    num_images: int = images["d_s"] + images["d_t"] + images["d_r"]
    return round(per_image * num_images)


def _command(parameters: Mapping[str, Any]) -> str:
    """The command with every option as it was, defaults included."""
    words = ["ralis", "benchmark"]
    for name, value in parameters.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--budgets {text!r} must be whole numbers separated by commas") from error


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise ValueError(f"--region-size {text!r} must look like 90x80, height x width")
    return int(height), int(width)
