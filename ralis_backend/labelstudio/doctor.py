"""Everything that commonly fails between Label Studio and this backend, checked in order."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import httpx

from ralis_backend.core import segmenter as segmenters
from ralis_backend.core.images import decode_image
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.core.stored_images import file_facts
from ralis_backend.labelstudio.check import Check, tried
from ralis_backend.labelstudio.client import LabelStudioClient, without_credentials
from ralis_backend.labelstudio.network import Network
from ralis_backend.labelstudio.payloads.tasks import project_uid
from ralis_backend.labelstudio.setup import ProjectSetup, same_url
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.labelstudio.work_checks import (
    error_checks,
    regions_check,
    work_checks,
    worker_check,
)
from ralis_backend.online.background import (
    Kept,
    Origin,
    background_of,
    class_names,
    described,
    said_choice,
)
from ralis_backend.online.choosing import FALLBACK
from ralis_backend.online.store import Store
from ralis_backend.online.tool import ToolProject, ToolTask

__all__ = ["Check", "Surroundings", "checks"]

MIN_FREE_BYTES = 2_000_000_000
MOST_TASKS = 5000
"""Tasks of a project whose addresses are looked at."""
MOST_KINDS = 12
DEFAULT_BACKEND_URL = "http://localhost:9090"


@dataclass(frozen=True)
class Surroundings:
    """What the checks look at.

    backend_url: where Label Studio reaches the backend; None: where it is connected.
    headers: a project's uid -> what its webhooks must carry.
    spec: the network that will be trained.
    device: that torch computes on.
    strategy: names of classes -> name of the strategy; `ValueError` if it does not fit them.
    known_strategy: its name; `ValueError` if it stands for nothing.
    store: what is known of the projects; None where nothing was connected yet.
    database: where that is kept; `ValueError` if it cannot be used.
    background_label: of projects that choose no background themselves.
    pictures: a project's uid -> how its pictures are shown.
    """

    client: LabelStudioClient
    tool: LabelStudioTool
    setup: ProjectSetup
    backend_url: str | None
    headers: Callable[[str], Mapping[str, str]]
    data_dir: Path
    spec: SegmenterSpec
    device: str
    strategy: Callable[[Sequence[str]], str]
    known_strategy: Callable[[], str] = lambda: FALLBACK
    store: Store | None = None
    database: Callable[[], str] = lambda: "not there yet; `ralis connect` makes it"
    background_label: str | None = None
    pictures: Callable[[str], str] = lambda _uid: "8 bits as they are"


def checks(around: Surroundings, project_id: int | None = None) -> Iterator[Check]:
    """Each check as it is made; later ones are left out where they cannot be made.

    Args:
        around: the backend and its Label Studio.
        project_id: a project to look at as well.
    """
    yield tried("data folder", lambda: _data_dir(around.data_dir), "make it writable")
    yield _disk(around.data_dir)
    yield tried("database", around.database, _DATABASE_FIX)
    yield _device(around)
    yield tried("weights", lambda: _weights(around.spec), _WEIGHTS_FIX)
    if project_id is None:
        yield tried("strategy", around.known_strategy, "set RALIS_STRATEGY as the message says")
    if around.store is not None:
        yield worker_check(around.store)
        if project_id is None:
            yield from error_checks(around.store)
    server = tried(
        "Label Studio",
        lambda: f"release {around.client.version()} at {around.client.url}",
        "start it, and set LABEL_STUDIO_URL to its address as seen from the backend (in a "
        "container, localhost is the container itself)",
    )
    yield server
    if not server.is_ok:
        return
    token = tried(
        "token",
        lambda: f"{around.client.auth.kind} of {around.client.whoami().get('email')}",
        "set LABEL_STUDIO_API_KEY to a token from Account & Settings",
    )
    yield token
    if not token.is_ok:
        return
    if project_id is None:
        yield _backend(around.backend_url or DEFAULT_BACKEND_URL, around.client.network)
        return
    addresses: list[str] = []

    def address() -> str:
        addresses.append(around.setup.address(project_id) or DEFAULT_BACKEND_URL)
        return f"Label Studio is told that this backend is at {addresses[0]}"

    place = tried(
        "project",
        lambda: regions_check(around.store, around.client, project_id),
        "name a project of whole images that the token can read",
    )
    yield place
    if place.is_ok:
        yield tried("address", address, "name a project that the token can read")
    if addresses:
        yield _backend(addresses[0], around.client.network)
        yield from _project_checks(around, project_id, addresses[0])
        if around.store is not None:
            yield from work_checks(around.store, around.client, project_id)


def _project_checks(around: Surroundings, project_id: int, address: str) -> Iterator[Check]:
    found: list[ToolProject] = []

    def read() -> str:
        found.append(around.tool.project(project_id))
        names = ", ".join(label.name for label in found[0].classes)
        return f"{len(found[0].classes)} labels: {names}"

    yield tried("label config", read, "change the labelling interface as the message says")
    if found:
        yield tried(
            "background",
            lambda: _background(around, found[0]),
            f"run `ralis connect --project {project_id} --background NAME`",
        )
    yield tried(
        "ML backend",
        lambda: _ml_backend(around, project_id, address),
        f"run `ralis connect --project {project_id}`",
    )
    yield tried(
        "webhook",
        lambda: _webhook(around, project_id, address),
        f"run `ralis connect --project {project_id}`; if it is missing again, Label Studio blocks "
        "the address: start it with ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false",
    )
    if found:
        yield tried(
            "strategy",
            lambda: around.strategy(_class_names(around, found[0])),
            f"until then {FALLBACK} ranks; set RALIS_STRATEGY, or 'strategy' in the extra params "
            "of the connection, as the message says",
        )
        yield from image_checks(around, project_id, found[0].uid)


def _background(around: Surroundings, project: ToolProject) -> str:
    labels = [label.name for label in project.classes]
    return described(_settled(around, project), labels)


def _class_names(around: Surroundings, project: ToolProject) -> list[str]:
    return class_names([label.name for label in project.classes], _settled(around, project))


def _settled(around: Surroundings, project: ToolProject) -> tuple[str, Origin] | None:
    """The background as Label Studio's connection and the setting have it."""
    labels = [label.name for label in project.classes]
    choice = said_choice(around.setup.extra_params(project.id), labels)
    return background_of(
        labels, None if isinstance(choice, Kept) else choice, around.background_label
    )


def _data_dir(folder: Path) -> str:
    if not folder.exists():
        there = next(it for it in folder.absolute().parents if it.exists())
        with tempfile.NamedTemporaryFile(dir=there) as file:
            file.write(b"ralis")
        return f"{folder.absolute()} is not there yet; `ralis connect` makes it"
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(b"ralis")
    return f"{folder.absolute()} is writable"


def _disk(folder: Path) -> Check:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    return Check(
        "disk space",
        free >= MIN_FREE_BYTES,
        f"{free / 1e9:.1f} GB free in {there}",
        f"free at least {MIN_FREE_BYTES / 1e9:.0f} GB, or lower RALIS_CACHE_BYTES",
    )


def _device(around: Surroundings) -> Check:
    from ralis_backend.core.segmenter.trial import why_not

    if around.device != "cpu" and (why := why_not(around.device)):
        return Check(
            "device",
            False,
            f"{around.device} cannot be used by torch: {why}",
            "install the NVIDIA driver (in a container: its runtime), or set RALIS_DEVICE=cpu",
        )
    if around.device.startswith("cuda"):
        import torch

        return Check("device", True, f"{around.device}: {torch.cuda.get_device_name()}")
    if around.device == "mps":
        return Check("device", True, "mps: Apple's GPU, which did what the processor does")
    return Check("device", True, f"{around.device}; training takes minutes, on a GPU seconds")


_DATABASE_FIX = "do what the message says; until then no command but this one works"
_WEIGHTS_FIX = (
    "download them once where there is a network and set HF_HUB_CACHE to that folder; without them "
    "training starts from random weights and needs far more labels; a file of weights must "
    "hold the tensors of RALIS_ENCODER"
)


def _weights(spec: SegmenterSpec) -> str:
    segmenter = segmenters.build(spec)
    if segmenter.lacks_weights:
        raise ValueError(f"{spec.encoder_weights} weights of {spec.encoder} cannot be had")
    if not segmenter.encoder_modules():
        return f"{spec.architecture}, which begins without any"
    return f"{spec.architecture} with {spec.encoder}, {spec.encoder_weights or 'random'} weights"


def _backend(address: str, network: Network) -> Check:
    url = f"{address.rstrip('/')}/health"
    fix = "start it with `ralis serve`, and set RALIS_BACKEND_URL to where Label Studio reaches it"
    try:
        status = httpx.get(
            url,
            timeout=5.0,
            verify=network.ssl_context,
            proxy=network.proxy_of(url),
            trust_env=False,
        ).status_code
    except httpx.HTTPError as error:
        return Check("backend", False, f"{url} does not answer: {type(error).__name__}", fix)
    return Check("backend", status == 200, f"{url} answers {status}", fix)


def _ml_backend(around: Surroundings, project_id: int, address: str) -> str:
    backends = around.client.backends(project_id)
    for backend in backends:
        if same_url(backend["url"], address):
            _check_public(backend["url"])
            state = backend.get("readable_state") or backend.get("state")
            if state not in ("Connected", "CO"):
                raise ValueError(f"{backend['url']} is in state {state}")
            return f"{backend['url']}: {state}"
    urls = ", ".join(without_credentials(backend["url"]) for backend in backends) or "none"
    raise ValueError(f"{address} is not connected to the project; connected: {urls}")


def _webhook(around: Surroundings, project_id: int, address: str) -> str:
    wanted = f"{address.rstrip('/')}/webhook"
    headers = dict(around.headers(project_uid(around.client.project(project_id))))
    for hook in around.client.webhooks(project_id):
        if same_url(hook["url"], wanted):
            _check_public(hook["url"])
            if not hook.get("is_active"):
                raise ValueError("the webhook is switched off")
            if dict(hook.get("headers") or {}) != headers:
                raise ValueError("the webhook does not carry the project's own secret")
            return f"{wanted}, with the project's own secret" if headers else wanted
    raise ValueError(
        f"there is no webhook to {wanted}: labels arrive late, at the next full reading"
    )


def _check_public(url: str) -> None:
    """Refuse an address with a user or password, which members of the project can read."""
    if url != without_credentials(url):
        raise ValueError(
            f"the address {without_credentials(url)} has a user or password in it, which members "
            "of the project can read; `ralis connect` replaces it"
        )


def image_checks(around: Surroundings, project_id: int, uid: str) -> Iterator[Check]:
    """One image of each kind of address that the project's tasks have, and how they are shown."""
    examples: dict[str, ToolTask] = {}
    counts: Counter[str] = Counter()

    def read() -> str:
        for task in islice(around.tool.tasks(project_id), MOST_TASKS):
            kind = around.tool.image_kind(task)
            counts[kind] += 1
            if len(examples) < MOST_KINDS:
                examples.setdefault(kind, task)
        return "the project has no task yet" if not counts else _counted(counts)

    listed = tried("images", read, "the token must be able to read the project's tasks")
    yield listed
    for kind, task in examples.items():
        name = "image download" if len(examples) == 1 else f"image download, {kind}"
        yield tried(name, partial(_image, around, kind, task), _IMAGE_FIX)
    if examples:
        yield Check("pictures", True, around.pictures(uid))


def _counted(counts: Counter[str]) -> str:
    total = counts.total()
    told = ", ".join(f"{count} {kind}" for kind, count in counts.most_common(MOST_KINDS))
    return f"{'the first ' if total >= MOST_TASKS else ''}{total} tasks: {told}"


def _image(around: Surroundings, kind: str, task: ToolTask) -> str:
    content = around.tool.image(task)
    decode_image(content)
    facts = file_facts(content)
    aside = ""
    if not facts.is_shown:
        aside = "; browsers show it dark or not at all: such pools need RALIS_MODE=crops"
    return f"{kind}: task {task.id}: {facts}{aside}"


_IMAGE_FIX = (
    "the token must be able to read the project; hosts other than Label Studio go into "
    "RALIS_IMAGE_HOSTS; the address under which browsers reach Label Studio goes into "
    "LABEL_STUDIO_PUBLIC_URL"
)
