"""One run of the demo: images, Label Studio, project, backend, then people or a script."""

from __future__ import annotations

import logging
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from ralis_backend.cli.demo import changes, demo_images
from ralis_backend.cli.demo.annotators import CropAnnotator, InPlaceAnnotator
from ralis_backend.cli.demo.demo_images import DemoImages
from ralis_backend.cli.demo.evaluation import spread
from ralis_backend.cli.demo.experiment import (
    Annotator,
    Experiment,
    Round,
    describe,
    results_json,
)
from ralis_backend.cli.demo.label_studio import LabelStudioServer
from ralis_backend.cli.demo.steps import step
from ralis_backend.cli.demo.workplace import (
    Backend,
    Workplace,
    port_near,
    stopped_by_signals,
    undisturbed,
)
from ralis_backend.cli.uploads import upload
from ralis_backend.core.files import write_json
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.payloads.label_config import REGION_LABEL
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.online.export import export_project, refuse_non_empty
from ralis_backend.online.report import HEADERS, curve_table, draw_curve
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Version
from ralis_backend.online.tool import ToolNotFound, ToolProject

logger = logging.getLogger(__name__)

FIRST_SUGGESTIONS_S = 900.0


@dataclass(frozen=True)
class Options:
    """What `ralis demo` was asked for."""

    images: Path | None
    dataset: Path | None
    class_names: tuple[str, ...]
    is_oracle: bool
    rounds: int
    regions_per_round: int
    region_size: str
    max_images: int | None
    eval_images: int | None
    strategy: str
    mode: str
    port: int
    backend_port: int
    out: Path | None
    folder: Path
    label_studio: Path | None
    seed: int
    is_kept: bool


class Session:
    """Starts everything, and stops everything however it ends."""

    def __init__(self, options: Options, console: Console | None = None) -> None:
        self._options = options
        self._console = console or Console()

    def run(self) -> None:
        """Until Ctrl-C, or until the script has labelled its rounds."""
        out = self._out()
        refuse_non_empty(out)
        with stopped_by_signals(), ExitStack() as running:
            try:
                self._run(running, out)
            except KeyboardInterrupt:
                self._console.print("\nStopping …")
            finally:
                with undisturbed():
                    running.close()
        self._console.print("Everything is stopped.")

    def _run(self, running: ExitStack, out: Path) -> None:
        options = self._options
        images = self._images()
        workplace = Workplace.open(options.folder)
        server = running.enter_context(self._label_studio(workplace))
        client = LabelStudioClient(server.url, workplace.token)
        fetcher = ImageFetcher(client, workplace.folder / "images", 2 * 1024**3)
        tool = LabelStudioTool(client, fetcher)
        project = self._project(workplace, client, tool, images)
        backend = running.enter_context(self._backend(workplace, server, project))
        data_folder = workplace.backend_folder(project.uid)
        store = Store.open(workplace.database_url(project.uid), data_folder / "blobs")
        running.callback(store.close)
        with self._waiting("Connecting Label Studio and the backend"):
            index = images.dataset.background
            names = images.dataset.class_names
            background = () if index is None else ("--background", names[index])
            backend.run("connect", "--project", str(project.id), *background)
        self._wait_for_suggestions(backend, store, project)
        self._show(server, workplace, store, project)
        if options.is_oracle:
            rounds = self._label_by_script(backend, client, tool, store, project, images)
            self._report(rounds, images, out)
            export_project(store, tool.image, project.uid, out / "dataset")
            self._console.print(f"Labelled dataset: {out / 'dataset'}", markup=False)
        elif _has_display():
            webbrowser.open(self._address(server, store, project))
        if not options.is_oracle or options.is_kept:
            self._stay(server, backend, store, project)

    # Images and the project

    def _images(self) -> DemoImages:
        options = self._options
        with self._waiting("Reading the images") as say:
            if options.dataset is not None:
                images = demo_images.from_dataset(options.dataset, options.max_images)
            elif options.images is not None:
                images = demo_images.from_folder(
                    options.images, options.class_names, options.max_images
                )
            else:
                images = demo_images.from_scenes(
                    options.folder,
                    options.seed,
                    options.max_images,
                    lambda done, total: say(f"Drawing street scenes: {done} of {total}"),
                )
        if options.is_oracle and not images.is_labelled:
            raise ValueError(
                f"{images.name} has images without masks, so a script cannot label them; add the "
                "masks (masks/<name>.png), or leave --oracle out and label them yourself"
            )
        self._console.print(
            f"{images.name}: {len(images.samples)} images to label, "
            f"{len(images.dataset.classes)} classes",
            markup=False,
        )
        return images

    def _project(
        self,
        workplace: Workplace,
        client: LabelStudioClient,
        tool: LabelStudioTool,
        images: DemoImages,
    ) -> ToolProject:
        """The project of an earlier run with the same images, or a new one."""
        key = images.fingerprint(self._options.mode)
        if not self._options.is_oracle and key in workplace.projects:
            try:
                return tool.project(workplace.projects[key])
            except ToolNotFound:
                logger.info("project %d is gone; a new one is made", workplace.projects[key])
        with self._waiting("Uploading images") as say:
            made = client.create_project(
                f"{images.name[:40]}: pool" if self._options.mode == "crops" else images.name[:50],
                demo_images.label_config(images.dataset.classes, self._options.mode, REGION_LABEL),
                show_collab_predictions=True,
            )
            project_id = int(made["id"])
            upload(client, project_id, images.names, say)
        if not self._options.is_oracle:
            workplace.projects[key] = project_id
            workplace.save()
        return tool.project(project_id)

    # Processes

    @contextmanager
    def _label_studio(self, workplace: Workplace) -> Iterator[LabelStudioServer]:
        executable = self._options.label_studio or _label_studio_beside()
        server = workplace.label_studio(executable, port_near(self._options.port))
        is_first = not (workplace.folder / "label-studio" / "label_studio.sqlite3").is_file()
        text = "Starting Label Studio"
        if is_first:
            text += " (the first start makes its database: about a minute)"
        with ExitStack() as running:
            with self._waiting(text):
                running.enter_context(server)
            yield server

    @contextmanager
    def _backend(
        self, workplace: Workplace, server: LabelStudioServer, project: ToolProject
    ) -> Iterator[Backend]:
        options = self._options
        port = port_near(options.backend_port)
        environment = workplace.environment(
            project.uid,
            server.url,
            port,
            {
                "RALIS_MODE": options.mode,
                "RALIS_STRATEGY": options.strategy,
                "RALIS_REGION_SIZE": options.region_size,
                "RALIS_REGIONS_PER_ROUND": str(options.regions_per_round),
                "RALIS_REGION_LABEL": REGION_LABEL,
                "RALIS_SEED": str(options.seed),
                # The script waits for each version, and its curve is over labels alone.
                **({"RALIS_IMPROVE_MINUTES": "0"} if options.is_oracle else {}),
            },
        )
        with Backend(
            port, environment, workplace.backend_folder(project.uid) / "backend.log"
        ) as backend:
            with self._waiting("Starting the backend"):
                backend.wait_ready()
            yield backend

    def _wait_for_suggestions(self, backend: Backend, store: Store, project: ToolProject) -> None:
        deadline = time.monotonic() + FIRST_SUGGESTIONS_S
        with self._waiting("Choosing the first regions") as say:
            while time.monotonic() < deadline:
                known = store.projects.find(project.uid)
                if known is not None and known.published_version == known.current_version:
                    return
                if not backend.is_running:
                    break
                status = backend.status(project.uid)
                if status.get("last_error"):
                    say(f"Choosing the first regions: {status['last_error']}")
                elif "percent" in status:
                    say(f"{describe(status).capitalize()}: {status['percent']:.0f} %")
                time.sleep(0.5)
        raise RuntimeError(f"no suggestions appeared; see {backend.log_path}")

    def _stay(
        self, server: LabelStudioServer, backend: Backend, store: Store, project: ToolProject
    ) -> None:
        """Until one of them ends; tells of each version that is trained meanwhile."""
        known = _versions(store, project)
        while server.is_running and backend.is_running:
            time.sleep(0.5)
            told = _versions(store, project)[: len(known) + 1]
            if len(told) > len(known) and _is_published(store, project):
                self._tell_of(told[-1], known[-1] if known else None)
                known = told
        name, log = (
            ("the backend", backend.log_path)
            if server.is_running
            else ("Label Studio", server.log_path)
        )
        raise RuntimeError(f"{name} ended; see {log}")

    def _tell_of(self, version: Version, before: Version | None) -> None:
        num_before = before.num_labels if before else 0
        told = changes.trained(
            version.name,
            version.num_labels,
            num_before,
            version.metrics,
            is_accepted=version.is_accepted,
        )
        following = (
            "  next: the tasks in Label Studio are chosen anew; label "
            f"{self._options.regions_per_round} more regions for the next version"
        )
        for line in (told, following):
            self._console.print(line, markup=False, soft_wrap=True)

    # The script

    def _label_by_script(
        self,
        backend: Backend,
        client: LabelStudioClient,
        tool: LabelStudioTool,
        store: Store,
        project: ToolProject,
        images: DemoImages,
    ) -> list[Round]:
        from ralis_backend.wiring import find_device

        options = self._options
        tasks = {task.id: task.image for task in tool.tasks(project.id)}
        truth = demo_images.samples_by_task(tasks, images.names)
        names = images.dataset.class_names
        annotator: Annotator
        regions_id = store.projects.get(project.uid).regions_tool_id
        if regions_id is not None:
            annotator = CropAnnotator(client, tool.project(regions_id), truth, names)
        else:
            annotator = InPlaceAnnotator(client, project, truth, names)
        experiment = Experiment(
            store=store,
            uid=project.uid,
            status=lambda: backend.status(project.uid),
            request_training=lambda: _request_training(client, project.id),
            annotator=annotator,
            validation=spread(images.validation, options.eval_images),
            test=spread(images.test, options.eval_images),
            device=find_device("auto"),
            console=self._console,
            class_names=names,
            background=images.dataset.background,
        )
        return experiment.run(options.rounds, options.regions_per_round)

    def _report(self, rounds: list[Round], images: DemoImages, out: Path) -> None:
        """The learning curve as a table, a picture and JSON."""
        if not rounds:
            raise RuntimeError("nothing could be labelled; see the backend's log")
        points = [done.point for done in rounds]
        table = Table(*HEADERS, "seconds", title=f"{escape(images.name)}: learning curve")
        for row, done in zip(curve_table(points), rounds, strict=True):
            table.add_row(*row, f"{sum(done.seconds.values()):.0f}")
        self._console.print(table)
        out.mkdir(parents=True, exist_ok=True)
        draw_curve(points, out / "curve.png", f"{images.name}, {self._options.strategy}")
        settings = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(self._options).items()
        }
        content = results_json(sys.argv, settings, images.dataset.class_names, rounds)
        write_json(out / "results.json", content)
        text = f"Learning curve: {out / 'curve.png'}, {out / 'results.json'}"
        self._console.print(text, markup=False)

    # What is shown

    def _show(
        self,
        server: LabelStudioServer,
        workplace: Workplace,
        store: Store,
        project: ToolProject,
    ) -> None:
        grid = Table.grid(padding=(0, 2))
        grid.add_row("Label here", f"[bold]{self._address(server, store, project)}[/bold]")
        if self._options.mode == "crops":
            grid.add_row("Whole images", f"{server.url}/projects/{project.id}/data")
        grid.add_row("Login", f"{workplace.username}   password  {workplace.password}")
        grid.add_row("Files", escape(str(workplace.folder.resolve())))
        grid.add_row(
            "",
            "Press “Label All Tasks”. Every "
            f"{self._options.regions_per_round} regions a new version is trained.",
        )
        if not self._options.is_oracle:
            grid.add_row("Stop", "Ctrl-C; the next start goes on where you stopped")
        self._console.print(Panel(grid, title="RALIS demo", expand=False, border_style="green"))

    def _address(self, server: LabelStudioServer, store: Store, project: ToolProject) -> str:
        regions_id = store.projects.get(project.uid).regions_tool_id
        return f"{server.url}/projects/{regions_id or project.id}/data?labeling=1"

    def _out(self) -> Path:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        return self._options.out or self._options.folder / "runs" / stamp

    @contextmanager
    def _waiting(self, text: str) -> Iterator[Callable[[str], None]]:
        """Something that takes a while; call what is yielded to change its text."""
        with step(self._console, text) as shown:
            yield shown.tell


def _versions(store: Store, project: ToolProject) -> list[Version]:
    return list(store.versions.all(store.projects.get(project.uid).id))


def _is_published(store: Store, project: ToolProject) -> bool:
    known = store.projects.get(project.uid)
    return known.published_version == known.current_version


def _request_training(client: LabelStudioClient, project_id: int) -> None:
    for backend in client.backends(project_id):
        client.train(int(backend["id"]))


def _label_studio_beside() -> Path:
    """The program in the environment beside the one that runs this."""
    return Path(sys.prefix).parent / ".venv-label-studio" / "bin" / "label-studio"


def _has_display() -> bool:
    """Whether a browser with windows can be opened; text browsers would take the terminal."""
    try:
        return type(webbrowser.get()) is not webbrowser.GenericBrowser
    except webbrowser.Error:
        return False
