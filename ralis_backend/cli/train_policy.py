"""`ralis train-policy`: a query policy from a fully labelled dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ralis_backend.cli.options import LARGEST_SEED, MOST_AT_ONCE, without_suffix
from ralis_backend.core.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from ralis_backend.offline.datasets import Dataset
    from ralis_backend.offline.training.trainer import Trainer, Training

DatasetFolders = Annotated[
    list[Path],
    typer.Option(
        "--dataset",
        help="Images, masks, classes.json and splits.json; several for a policy of any label set.",
    ),
]
Config = Annotated[
    str,
    typer.Option(
        help="faithful, repaired, repaired-warm, or a JSON file with a base and what differs; "
        "adaptive, adaptive-apart, any: policies for any label set; adaptive-fixed, linear: what "
        "they are measured by; misical, misical-linear: one that looks for a class; or a plug-in's."
    ),
]
Reward = Annotated[
    str | None,
    typer.Option(
        help="miou, wiou, wiou-printed, cvar, log_pixels; of misical categorical, continuous; or a "
        "plug-in's; else the config's."
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        help="The policy's path without a suffix: policies/NAME.", callback=without_suffix
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of everything random.")]
Episodes = Annotated[int | None, typer.Option(min=1, help="Games played; else the config's.")]
Fidelity = Annotated[str | None, typer.Option(help="fast or full; else the config's.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
Threads = Annotated[
    int,
    typer.Option(
        min=1, max=MOST_AT_ONCE, help="CPU threads; one was fastest, and the bits depend on it."
    ),
]
Shuffle = Annotated[
    bool, typer.Option("--shuffle-rewards", help="Give rewards to the wrong picks: a placebo.")
]
Cache = Annotated[Path, typer.Option(help="Folder for encoder features; safe to delete.")]


def train_policy(
    dataset: DatasetFolders,
    out: Out,
    config: Config = "repaired",
    reward: Reward = None,
    seed: Seed = 0,
    episodes: Episodes = None,
    fidelity: Fidelity = None,
    device: Device = "auto",
    threads: Threads = 1,
    cache: Cache = Path(".cache/points"),
    shuffle_rewards: Shuffle = False,
) -> None:
    """Train a query policy; an interrupted run goes on where it was when called again."""
    import torch
    from rich.console import Console

    from ralis_backend.core.policy.registry import check_policy_name
    from ralis_backend.offline.training.config import read_config
    from ralis_backend.offline.training.registry import find_trainer
    from ralis_backend.offline.training.trainer import Equipment, Options
    from ralis_backend.settings import load_settings
    from ralis_backend.wiring import find_device, segmenter_spec

    check_policy_name(out.name)
    torch.set_num_threads(threads)
    settings, console = load_settings(), Console()
    chosen = read_config(config)
    trainer = find_trainer(chosen)
    chosen = trainer.configured(chosen, Options(reward, episodes, fidelity, shuffle_rewards))
    with console.status("Reading the dataset") as status:
        equipment = Equipment(
            cache,
            segmenter_spec(settings),
            find_device(device),
            status.update,
        )
        training = trainer.prepare(chosen, _opened(trainer, dataset, config), equipment)
    _train(training, out, seed, console)
    text = f"{out}.safetensors is the policy, {out}.json how it was trained."
    console.print(printable(text), markup=False)


def _opened(trainer: Trainer[Any], folders: list[Path], config: str) -> list[Dataset]:
    """The datasets, as many and with such splits as the trainer needs."""
    from ralis_backend.offline.datasets import Dataset
    from ralis_backend.offline.training.trainer import check_splits

    if len(folders) != 1 and not trainer.takes_several_datasets:
        raise ValueError(f"--config {config} learns from one --dataset, {len(folders)} were given")
    datasets = [Dataset.open(folder) for folder in folders]
    for dataset in datasets:
        check_splits(dataset, trainer.splits)
    return datasets


def _train(training: Training, out: Path, seed: int, console: Console) -> None:
    """Train, and show how far it is."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from ralis_backend.offline.training.trainer import Progress as Done

    columns = (BarColumn(), TextColumn("{task.fields[facts]}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=None, facts="")

        def show(done: Done) -> None:
            facts = f"{done.facts}, score {100 * done.score:.1f}"
            facts += f", {done.seconds_left / 60:.0f} min left"
            progress.update(bar, total=done.total, completed=done.done, facts=facts)

        training(out, seed=seed, on_progress=show)
