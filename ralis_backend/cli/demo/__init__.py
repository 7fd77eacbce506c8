"""`ralis demo`: everything on one machine, with images of yours or scenes of ours.

Starts Label Studio and the backend, makes a project, connects both, and stops all on Ctrl-C. With
`--oracle` a script labels from the masks, and the learning curve is what comes out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from ralis_backend.cli.options import LARGEST_SEED
from ralis_backend.core.text import printable_lines

Images = Annotated[
    Path | None,
    typer.Option(help="A folder of pictures to label, with or without masks; default: our scenes."),
]
DatasetFolder = Annotated[
    Path | None, typer.Option("--dataset", help="A dataset with masks and splits; labels its d_v.")
]
Oracle = Annotated[bool, typer.Option(help="Let a script label from the masks, then stop.")]
Rounds = Annotated[int, typer.Option(min=1, help="With --oracle: rounds.")]
RegionsPerRound = Annotated[int, typer.Option(min=1, help="Regions labelled per round.")]
RegionSize = Annotated[str, typer.Option(help="Height x width of a region in pixels.")]
MaxImages = Annotated[int | None, typer.Option(min=1, help="Use at most this many images.")]
EvalImages = Annotated[
    int | None, typer.Option(min=1, help="Judge on at most this many images of each split.")
]
Strategy = Annotated[str, typer.Option(help="How regions are chosen.")]
Mode = Annotated[str, typer.Option(help="`crops` or `in-place`.")]
Classes = Annotated[
    str, typer.Option(help="For a folder of pictures: class names, separated by commas.")
]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Label Studio's port; else a free one.")]
BackendPort = Annotated[
    int, typer.Option(min=1, max=65535, help="Backend's port; else a free one.")
]
Out = Annotated[Path | None, typer.Option(help="With --oracle: folder for curve, results, export.")]
Folder = Annotated[Path, typer.Option(help="Where the demo keeps its databases and images.")]
LabelStudio = Annotated[Path | None, typer.Option(help="The `label-studio` program.")]
Seed = Annotated[
    int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the scenes and of the backend.")
]
Keep = Annotated[
    bool, typer.Option(help="With --oracle: keep everything running at the end, until Ctrl-C.")
]


def demo(
    images: Images = None,
    dataset: DatasetFolder = None,
    oracle: Oracle = False,
    rounds: Rounds = 5,
    regions_per_round: RegionsPerRound = 24,
    region_size: RegionSize = "128x128",
    max_images: MaxImages = None,
    eval_images: EvalImages = None,
    strategy: Strategy = "default",
    mode: Mode = "crops",
    classes: Classes = "",
    port: Port = 8080,
    backend_port: BackendPort = 9090,
    out: Out = None,
    folder: Folder = Path(".demo"),
    label_studio: LabelStudio = None,
    seed: Seed = 0,
    keep: Keep = False,
) -> None:
    """Start Label Studio and the backend, and label suggested regions in the browser."""
    from ralis_backend.cli.demo.session import Options, Session

    if images is not None and dataset is not None:
        raise ValueError("--images and --dataset exclude each other; give one of them")
    if mode not in ("crops", "in-place"):
        raise ValueError(f"--mode {mode!r} is unknown; choose crops or in-place")
    if not re.fullmatch(r"\d+x\d+", region_size):
        raise ValueError(f"--region-size {region_size!r} is not height x width, such as 128x128")
    options = Options(
        images=images,
        dataset=dataset,
        class_names=tuple(name.strip() for name in classes.split(",") if name.strip()),
        is_oracle=oracle,
        rounds=rounds,
        regions_per_round=regions_per_round,
        region_size=region_size,
        max_images=max_images,
        eval_images=eval_images,
        strategy=strategy,
        mode=mode,
        port=port,
        backend_port=backend_port,
        out=out,
        folder=folder,
        label_studio=label_studio,
        seed=seed,
        is_kept=keep,
    )
    try:
        Session(options).run()
    except (RuntimeError, OSError) as error:
        typer.secho(f"ralis demo: {printable_lines(str(error))}", fg="red", err=True)
        raise typer.Exit(1) from None
