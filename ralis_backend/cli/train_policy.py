"""`ralis train-policy`: a query policy from a fully labelled dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ralis_backend.offline.training.config import EvolutionConfig, TrainingConfig

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
        help="faithful, repaired, or a JSON file with a base and what differs; any: a policy "
        "for any label set; linear: its linear placebo."
    ),
]
Reward = Annotated[
    str | None,
    typer.Option(help="miou, wiou, wiou-printed, cvar or log_pixels; else the config's."),
]
Out = Annotated[Path, typer.Option(help="The policy's path without a suffix: policies/NAME.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
Episodes = Annotated[int | None, typer.Option(min=1, help="Games played; else the config's.")]
Fidelity = Annotated[str | None, typer.Option(help="fast or full; else the config's.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
Threads = Annotated[
    int, typer.Option(min=1, help="CPU threads; one was fastest, and the bits depend on it.")
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
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from torch.utils.tensorboard.writer import SummaryWriter

    from ralis_backend.offline.datasets import Dataset
    from ralis_backend.offline.training.config import EvolutionConfig, read_config
    from ralis_backend.offline.training.open_simulation import open_simulation
    from ralis_backend.offline.training.ralis import Progress as Done
    from ralis_backend.offline.training.ralis import train
    from ralis_backend.settings import load_settings
    from ralis_backend.wiring import find_device, segmenter_spec

    torch.set_num_threads(threads)
    settings = load_settings()
    chosen = _chosen(read_config(config), reward, episodes, fidelity, shuffle_rewards)
    if isinstance(chosen, EvolutionConfig):
        _train_for_any(dataset, out, chosen, seed, cache, device)
        return
    if len(dataset) != 1:
        raise ValueError(f"--config {config} learns from one --dataset, {len(dataset)} were given")
    console, device = Console(), find_device(device)
    with console.status("Reading the dataset") as status:
        source = Dataset.open(dataset[0])
        simulation = open_simulation(
            source,
            chosen,
            cache,
            spec=segmenter_spec(settings),
            device=device,
            report=status.update,
        )
    columns = (
        TextColumn("episode {task.fields[episode]}"),
        BarColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeElapsedColumn(),
    )
    log_folder = out.with_name(f"{out.name}.training") / "tensorboard"
    with SummaryWriter(str(log_folder)) as log, Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=chosen.episodes, episode="", facts="")

        def show(done: Done) -> None:
            loss = "–" if done.loss is None else f"{done.loss:.3f}"
            progress.update(
                bar,
                completed=done.episode - 1 + done.step / done.steps,
                episode=f"{done.episode} of {done.episodes}",
                facts=f"step {done.step} of {done.steps}, score {100 * done.score:.1f}, reward "
                f"{done.reward:+.2f}, loss {loss}, epsilon {done.epsilon:.2f}, "
                f"{done.seconds_left / 60:.0f} min left",
            )

        train(source, simulation, chosen, out, seed=seed, device=device, log=log, on_progress=show)
    console.print(f"{out}.safetensors is the policy, {out}.json how it was trained.")


def _chosen(
    config: TrainingConfig | EvolutionConfig,
    reward: str | None,
    episodes: int | None,
    fidelity: str | None,
    does_shuffle: bool,
) -> TrainingConfig | EvolutionConfig:
    from ralis_backend.offline.training.config import EvolutionConfig
    from ralis_backend.offline.training.rewards import score

    config = replace(config, does_shuffle_rewards=does_shuffle or config.does_shuffle_rewards)
    if isinstance(config, EvolutionConfig):
        if reward not in (None, "miou") or fidelity not in (None, "fast"):
            raise ValueError("a policy for any label set learns with reward miou and fidelity fast")
        return config if episodes is None else replace(config, generations=episodes)
    if reward is not None:
        config = replace(config, environment=replace(config.environment, reward=reward))
    if episodes is not None:
        config = replace(config, episodes=episodes)
    if fidelity not in (None, "fast", "full"):
        raise ValueError(f"--fidelity {fidelity!r} is unknown; choose fast or full")
    score(config.environment.reward)
    return config if fidelity is None else replace(config, fidelity=fidelity)  # type: ignore[arg-type]


def _train_for_any(
    folders: list[Path], out: Path, config: EvolutionConfig, seed: int, cache: Path, device: str
) -> None:
    """A policy for any label set, or its linear placebo, from the `d_t` splits of some datasets."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from ralis_backend.offline.datasets import Dataset
    from ralis_backend.offline.point_features import PointFeatures
    from ralis_backend.offline.training.evolution import Progress as Done
    from ralis_backend.offline.training.evolution import evolve, fit_linear
    from ralis_backend.settings import load_settings
    from ralis_backend.wiring import find_device, segmenter_spec

    settings, console, device = load_settings(), Console(), find_device(device)
    sources = {}
    with console.status("Reading the datasets") as status:
        for folder in folders:
            dataset = Dataset.open(folder)
            features = PointFeatures(
                dataset,
                config.region_size,
                cache,
                spec=segmenter_spec(settings),
                device=device,
                report=status.update,
            )
            sources[dataset.name] = features.split("d_t")
    columns = (BarColumn(), TextColumn("{task.fields[facts]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=None, facts="")

        def show(done: Done) -> None:
            progress.update(
                bar,
                total=done.games,
                completed=done.game,
                facts=f"game {done.game} of {done.games}, mIoU {100 * done.score:.1f}, "
                f"spread {100 * done.spread:.2f}, {done.seconds_left / 60:.0f} min left",
            )

        train = fit_linear if config.ranker == "linear" else evolve
        train(sources, config, out, seed=seed, device=device, on_progress=show)
    console.print(f"{out}.safetensors is the policy, {out}.json how it was trained.")
