"""The `ralis` command. Modules that take long to import are imported inside the commands."""

from __future__ import annotations

import io
import os
import sys

import typer

from ralis_backend.cli import (
    bench,
    benchmark,
    check_plugin,
    connect,
    demo,
    disconnect,
    doctor,
    export,
    import_dataset,
    mine,
    serve,
    simulate,
    status,
    train,
    train_policy,
    train_segmenter,
    versions,
    web,
    worker,
)
from ralis_backend.cli.errors import REFUSED, is_expected, tell

app = typer.Typer(
    name="ralis",
    help="Active learning for image segmentation inside Label Studio.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.command("web")(web.web)
app.command("worker")(worker.worker)
app.command("connect")(connect.connect)
app.command("disconnect")(disconnect.disconnect)
app.command("status")(status.status)
app.command("train")(train.train)
app.command("mine")(mine.mine)
app.command("doctor")(doctor.doctor)
app.command("versions")(versions.versions)
app.command("export")(export.export)
app.command("import")(import_dataset.import_dataset)
app.command("demo")(demo.demo)
app.command("simulate")(simulate.simulate)
app.command("train-policy")(train_policy.train_policy)
app.command("train-segmenter")(train_segmenter.train_segmenter)
app.command("benchmark")(benchmark.benchmark)
app.command("check-plugin")(check_plugin.check_plugin)
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run the command line; an expected error is one line and exit code 2.

    What it writes, labels and tokens among it, is readable by its own user alone.
    """
    refuse_windows(sys.platform)
    os.umask(0o077)
    if isinstance(sys.stdout, io.TextIOWrapper):  # titles and labels have letters of any script
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except Exception as error:
        if not is_expected(error):
            raise
        tell(error)
        sys.exit(REFUSED)


def refuse_windows(platform: str) -> None:
    """End at once where processes, permissions and paths are others than this package expects.

    Args:
        platform: as in `sys.platform`.

    Raises:
        SystemExit: on Windows, with what to do; Python of WSL or of a container is no Windows.
    """
    if platform in ("win32", "cygwin", "msys"):
        typer.secho(
            "ralis: Windows itself is not supported. Use WSL (`wsl --install`, then install and "
            "run ralis inside Ubuntu; Label Studio may stay on Windows), or Docker Desktop with "
            "docker/docker-compose.yml.",
            fg="red",
            err=True,
        )
        sys.exit(2)
