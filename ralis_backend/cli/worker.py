"""`ralis worker`: what trains, ranks and publishes, alone."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from ralis_backend.cli.log import configure_logging

if TYPE_CHECKING:
    from ralis_backend.cli.supervisor import Child
    from ralis_backend.online.store import Store
    from ralis_backend.online.worker import Worker, WorkerConfig
    from ralis_backend.settings import Settings

logger = logging.getLogger(__name__)

NICENESS = 10
"""Of the worker: while it trains, the web processes go first."""


Unsupervised = Annotated[
    bool, typer.Option("--unsupervised", help="End when the worker ends, for what restarts it.")
]


def worker(unsupervised: Unsupervised = False) -> None:
    """Run the worker alone: sync, train, rank, publish; started again when it ends."""
    from ralis_backend.cli.supervisor import Supervisor, stop_on_signals
    from ralis_backend.settings import load_settings
    from ralis_backend.wiring import check_segmenter

    if unsupervised:
        _work(stop_on_signals())
        return
    settings = load_settings()
    configure_logging(settings.log_level)
    check_segmenter(settings)
    Supervisor([worker_child()]).run(stop_on_signals())


def worker_child() -> Child:
    """The worker as a process to be kept running: what hangs or grows too large is ended."""
    from ralis_backend.cli.supervisor import Child

    ralis = (sys.executable, "-m", "ralis_backend.cli")
    return Child("worker", (*ralis, "worker", "--unsupervised"))


def _work(stop: threading.Event) -> None:
    from ralis_backend.cli.errors import starting
    from ralis_backend.online.worker.cores import FreeCores
    from ralis_backend.settings import load_settings

    with starting():
        settings = load_settings()
    configure_logging(settings.log_level)
    if settings.api_key is None:
        logger.warning(
            "LABEL_STUDIO_API_KEY is not set: labels and images are read with the token that Label "
            "Studio hands over when this backend is connected to a project; that works only where "
            "legacy tokens are on"
        )
    os.nice(NICENESS)
    with starting():
        worker = create_worker(settings, FreeCores().adapt)
    worker.run(stop)


def create_worker(settings: Settings, adapt: Callable[[], object] = lambda: None) -> Worker:
    """The worker, on the GPU where there is one; `adapt` is called all along, see `Worker`."""
    from ralis_backend.core.policy.registry import check_usable
    from ralis_backend.online.worker import Worker
    from ralis_backend.wiring import check_segmenter, create_store, create_tool, find_device

    check_segmenter(settings)
    check_usable(settings.strategy, settings.policies_dir)
    config = worker_config(settings, find_device(settings.device))
    store = create_store(settings)
    renew_webhooks(store, settings)
    return Worker(store, create_tool(settings), config, adapt=adapt)


def worker_config(settings: Settings, device: str) -> WorkerConfig:
    """How projects are treated, computing on `device`."""
    from ralis_backend.core.learning.registry import besides_paint
    from ralis_backend.online.pictures import PictureSettings
    from ralis_backend.online.worker import WorkerConfig
    from ralis_backend.wiring import ranking_config

    besides_paint(settings.learner)  # a wrong name is told now, not when the training begins
    return WorkerConfig(
        mode=settings.mode,
        ranking=ranking_config(settings, device),
        pictures=PictureSettings(settings.bands, settings.intensity_range),
        improve_s=60 * settings.improve_minutes,
        background_label=settings.background_label,
        suggestions_per_image=settings.suggestions_per_image,
        learner=settings.learner,
        trust_rounds=settings.trust_rounds,
        random_share=settings.random_share,
        sync_s=settings.sync_seconds,
        stall_s=settings.stall_seconds,
        kept_versions=settings.keep_versions,
        kept_events_days=settings.keep_events_days,
    )


def renew_webhooks(store: Store, settings: Settings) -> None:
    """Have all webhooks brought up to date that carry what is not accepted any more.

    Those of before each project had a secret of its own show the backend's password to everyone
    who may read the project.
    """
    from ralis_backend.core.files import OWNER_ONLY, write_bytes
    from ralis_backend.wiring import create_webhook_secret

    secret = create_webhook_secret(settings)
    wanted = "none" if secret is None else secret.fingerprint()
    carried = settings.data_dir / "webhooks-carry"
    if carried.is_file() and carried.read_bytes() == wanted.encode("ascii"):
        return
    for project in store.projects.all():
        store.projects.change(project.id, is_prepared=False)
    write_bytes(carried, wanted.encode("ascii"), mode=OWNER_ONLY)
