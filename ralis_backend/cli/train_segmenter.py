"""`ralis train-segmenter`: a segmenter from rewards, on a fully labelled dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ralis_backend.cli.options import LARGEST_SEED, MOST_AT_ONCE, without_suffix
from ralis_backend.core.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from ralis_backend.core.learning.rewards.config import RewardConfig
    from ralis_backend.offline.segmenter_training import SegmenterTraining

DatasetFolder = Annotated[
    Path, typer.Option("--dataset", help="Images, masks, classes.json and splits.json.")
]
Out = Annotated[
    Path,
    typer.Option(
        help="Path without a suffix: of the segmenter and its results.", callback=without_suffix
    ),
]
Reward = Annotated[
    str,
    typer.Option(
        help="pixel: told of each pixel whether it is right; image: told one score for a whole "
        "map, no mask; none: cross-entropy on the masks, to compare."
    ),
]
Init = Annotated[str, typer.Option(help="random, imagenet, or a segmenter's file.")]
Cycles = Annotated[
    int, typer.Option(min=1, help="Each is measured; a stopped run goes on after its last one.")
]
Updates = Annotated[int, typer.Option(min=1, help="Updates of a cycle.")]
Maps = Annotated[
    int | None,
    typer.Option(min=2, help="Image, pixel: action maps drawn, and scored, of each crop; else 32."),
]
Strides = Annotated[
    str | None,
    typer.Option(
        help="Image: sides of cells in pixels, falling; one alone: no progressive scale; else "
        "32,16,8,4."
    ),
]
Wrong = Annotated[
    float | None, typer.Option(min=0, max=1, help="Image: share of scores that are guessed.")
]
Stars = Annotated[
    int | None, typer.Option(min=2, help="Image: scores are told as so many stars; else exactly.")
]
Crop = Annotated[str, typer.Option(help="Height x width of a crop in pixels, multiples of 32.")]
Batch = Annotated[int, typer.Option(min=1, help="Crops of an update.")]
Regions = Annotated[
    int | None, typer.Option(min=1, help="Learn from so many random regions, not whole images.")
]
RegionSize = Annotated[str, typer.Option(help="Height x width of a region in pixels.")]
ImageScale = Annotated[float, typer.Option(help="Show images at this scale, as 0.5.")]
TestImages = Annotated[
    int | None, typer.Option(min=1, help="Measure on so many images, evenly spaced.")
]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of everything random.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
Threads = Annotated[
    int, typer.Option(min=1, max=MOST_AT_ONCE, help="CPU threads; the bits depend on it.")
]


def train_segmenter(
    dataset: DatasetFolder,
    out: Out,
    reward: Reward = "image",
    init: Init = "imagenet",
    cycles: Cycles = 10,
    updates: Updates = 200,
    maps: Maps = None,
    strides: Strides = None,
    wrong: Wrong = None,
    stars: Stars = None,
    crop: Crop = "192x192",
    batch: Batch = 4,
    regions: Regions = None,
    region_size: RegionSize = "90x80",
    image_scale: ImageScale = 1.0,
    test_images: TestImages = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Train a segmenter from rewards; an interrupted run goes on where it was when called again."""
    import torch
    from rich.console import Console

    from ralis_backend.core.learning.config import FinetuneConfig
    from ralis_backend.core.learning.rewards.config import RewardConfig
    from ralis_backend.core.learning.rewards.scores import Noise
    from ralis_backend.offline.datasets import Dataset
    from ralis_backend.offline.segmenter_training import Recipe, SegmenterTraining
    from ralis_backend.settings import load_settings
    from ralis_backend.wiring import find_device, segmenter_spec

    _check_reward(reward, {"--strides": strides, "--wrong": wrong, "--stars": stars}, maps)
    sides = _numbers("32,16,8,4" if strides is None else strides)
    rewards = RewardConfig(num_maps=maps or 32, strides=sides)
    torch.set_num_threads(threads)
    settings, console = load_settings(), Console()
    recipe = Recipe(
        reward, init, cycles, updates,
        image_scale=image_scale, test_images=test_images,
        regions=regions, region_size=_size("--region-size", region_size),
        finetune=FinetuneConfig(
            batch_size=batch, crop_size=_size("--crop", crop), rarity_share=0.0
        ),
        rewards=_rewards(rewards, cycles * updates),
        noise=Noise(wrong or 0.0, stars),
    )  # fmt: skip
    with console.status("Reading the dataset"):
        training = SegmenterTraining(
            recipe, Dataset.open(dataset), segmenter_spec(settings), out,
            seed=seed, device=find_device(device),
        )  # fmt: skip
    try:
        _train(training, console)
    except KeyboardInterrupt:
        kept = (
            f"What was measured is in {out}.json; the same command goes on."
            if len(training.curve) > 1
            else "No cycle was done, so that nothing is kept; the same command begins anew."
        )
        console.print(f"Stopped. {printable(kept)}", markup=False)
        raise typer.Exit(130) from None
    first, last = training.curve[0]["miou"], training.curve[-1]["miou"]
    console.print(f"mIoU {100 * first:.1f} -> {100 * last:.1f} % on {recipe.measured_on}.")
    text = f"{out}.safetensors is the segmenter, {out}.json how it was trained."
    console.print(printable(text), markup=False)


def _check_reward(reward: str, of_images: Mapping[str, object], maps: int | None) -> None:
    """Refuse options that the reward has no use for."""
    unused = [name for name, value in of_images.items() if value is not None]
    if unused and reward in ("pixel", "none"):
        raise ValueError(
            f"{' and '.join(unused)} cannot go with --reward {reward}: only --reward image draws "
            "maps in strides, and is told a score of each; leave them out"
        )
    if reward == "none" and maps is not None:
        raise ValueError(
            "--maps cannot go with --reward none, which draws no maps: it goes with --reward image "
            "or pixel; leave it out"
        )


def _rewards(config: RewardConfig, updates: int) -> RewardConfig:
    """The same, such that every stride has its turn in so many updates.

    Where the scores never rise, half of the updates are left for the last one.
    """
    return replace(config, patience=max(1, updates // (4 * len(config.strides))))


def _train(training: SegmenterTraining, console: Console) -> None:
    """Train, and show how far it is."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from ralis_backend.offline.training.trainer import Progress as Done

    columns = (BarColumn(), TextColumn("{task.fields[facts]}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=training.recipe.cycles, facts="measuring")

        def show(done: Done) -> None:
            facts = f"{done.facts}, mIoU {100 * done.score:.1f} %"
            facts += f", {done.seconds_left / 60:.0f} min left"
            progress.update(bar, total=done.total, completed=done.done, facts=facts)

        training.run(show)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"--strides {text!r} must be whole numbers separated by commas") from error


def _size(option: str, text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise ValueError(f"{option} {text!r} must look like 96x128, height x width")
    return int(height), int(width)
