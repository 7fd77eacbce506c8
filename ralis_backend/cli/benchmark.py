"""`ralis benchmark`: strategies compared on a labelled dataset, paired by seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ralis_backend.core.acquisition import Strategy
    from ralis_backend.core.simulation.oracles import Oracle

DatasetFolder = Annotated[
    Path, typer.Option("--dataset", help="Images, masks, classes.json and splits.json.")
]
Strategies = Annotated[str, typer.Option(help="Names, separated by commas.")]
Seeds = Annotated[int, typer.Option(min=1, help="How many seeds, from --first-seed on.")]
FirstSeed = Annotated[int, typer.Option(min=0, help="The first one.")]
Budgets = Annotated[str, typer.Option(help="Labelled regions, rising, separated by commas.")]
RegionSize = Annotated[str, typer.Option(help="Height x width of a region in pixels.")]
Weighting = Annotated[
    float,
    typer.Option(min=0, max=1, help="The loss weighs a class by its frequency to minus this."),
]
Pool = Annotated[str, typer.Option(help="Split whose regions are labelled.")]
MeasureOn = Annotated[
    str, typer.Option(help="Split on which segmenters are measured; d_r to choose a policy.")
]
Out = Annotated[Path, typer.Option(help="Folder of the results; what is there is not repeated.")]
Policies = Annotated[Path, typer.Option(help="Folder of trained policies.")]
Threads = Annotated[
    int, typer.Option(min=1, help="CPU threads; one was fastest, and the bits depend on it.")
]
Cache = Annotated[Path, typer.Option(help="Folder for encoder features; safe to delete.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]


def benchmark(
    dataset: DatasetFolder,
    out: Out,
    strategies: Strategies = "random,entropy,margin",
    seeds: Seeds = 3,
    first_seed: FirstSeed = 0,
    budgets: Budgets = "144,240,480,960,1440,1920",
    region_size: RegionSize = "90x80",
    class_weight_power: Weighting = 0.0,
    pool: Pool = "d_v",
    measure_on: MeasureOn = "test",
    policies: Policies = Path("policies"),
    threads: Threads = 1,
    cache: Cache = Path(".cache/points"),
    device: Device = "auto",
) -> None:
    """Play the labelling game with each strategy, and measure what the segmenter learned."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from ralis_backend.app.wiring import find_device
    from ralis_backend.core.simulation.game import Arena, GameRules
    from ralis_backend.core.simulation.heads import HeadConfig
    from ralis_backend.offline.benchmark import run
    from ralis_backend.offline.datasets import Dataset
    from ralis_backend.offline.simulation.point_features import PointFeatures
    from ralis_backend.settings import load_settings

    torch.set_num_threads(threads)
    settings = load_settings()
    wanted = _numbers(budgets)
    config = replace(
        GameRules(),
        budgets=wanted,
        initial_regions=min(GameRules.initial_regions, wanted[0]),
        head=HeadConfig(class_weight_power=class_weight_power),
    )
    size = _size(region_size)
    source, console, device = Dataset.open(dataset), Console(), find_device(device)
    chosen = _strategies(strategies, policies, source.class_names, size)
    with console.status("Reading the dataset") as status:
        features = PointFeatures(
            source,
            size,
            cache,
            encoder=settings.encoder,
            encoder_weights=settings.initial_weights,
            device=device,
            report=status.update,
        )
        arena = Arena(
            source.name,
            features.split(pool, any(it.looks_twice for it in chosen.values())),
            features.split("d_s"),
            features.split(measure_on),
        )
        numbers = range(first_seed, first_seed + seeds)
        content = run(arena, chosen, numbers, config, out, device=device, report=status.update)
    table = Table("strategy", *(f"{count} regions" for count in config.budgets), "to 96 %")
    for name, entry in content["strategies"].items():
        reached = entry["regions_to"]["0.96"]["value"]
        table.add_row(
            name,
            *(f"{100 * point['miou']:.1f}" for point in entry["curve"]),
            "–" if reached is None else f"{reached:.0f}",
        )
    console.print(table)
    console.print(
        f"mIoU on {measure_on} in %, mean of {seeds} seeds; all labels: "
        f"{100 * content['all_labels_miou']:.1f}. Results are in {out}."
    )


def _strategies(
    names: str, policies: Path, classes: tuple[str, ...], region_size: tuple[int, int]
) -> dict[str, Strategy | Oracle]:
    from ralis_backend.core.simulation.oracles import ORACLES
    from ralis_backend.online.policies import find_strategy

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise ValueError("--strategies names none; give some, as random,entropy")
    return {
        name: ORACLES.get(name) or find_strategy(name, policies, classes, region_size)
        for name in wanted
    }


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--budgets {text!r} must be whole numbers separated by commas") from error


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ValueError(f"--region-size {text!r} must look like 90x80, height x width")
    return int(height), int(width)
