"""Settings -> the objects that several commands or the web server need.

What one command alone needs is made there: the worker in `cli/worker`, and the web process never
loads it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from ralis_backend.core.unavailable import UnavailableError
from ralis_backend.settings import Settings

if TYPE_CHECKING:
    from ralis_backend.core.segmenter import SegmenterSpec
    from ralis_backend.labelstudio.address_book import AddressBook
    from ralis_backend.labelstudio.client import LabelStudioClient
    from ralis_backend.labelstudio.fetcher import ImageFetcher
    from ralis_backend.labelstudio.network import Network
    from ralis_backend.labelstudio.setup import ProjectSetup
    from ralis_backend.labelstudio.token_file import Handover, TokenFile
    from ralis_backend.labelstudio.tool import LabelStudioTool
    from ralis_backend.labelstudio.webhook_secret import WebhookSecret
    from ralis_backend.online.choosing import RankingConfig
    from ralis_backend.online.learner import Learner
    from ralis_backend.online.store import Store

logger = logging.getLogger(__name__)


def create_store(settings: Settings) -> Store:
    """The store in the data folder, its tables up to date, without an open connection.

    Forked web workers must not share connections: each opens its own on first use.
    """
    from ralis_backend.core.files import make_private_folder
    from ralis_backend.online.store import Store

    make_private_folder(settings.data_dir)
    store = Store.open(settings.database_url, settings.data_dir / "blobs")
    store.close()
    return store


def may_have_store(settings: Settings) -> bool:
    """Whether there may be a store: not where the data folder is to hold it, and does not."""
    return not settings.has_own_database or settings.database_file.is_file()


def find_store(settings: Settings) -> Store | None:
    """The store that is there already; None if there is none, or it cannot be opened."""
    try:
        return open_store(settings)
    except Exception:  # what is wrong with it is for others to say
        logger.debug("no store", exc_info=True)
        return None


def open_store(settings: Settings) -> Store:
    """The store that is there already: what only looks must not make an empty one.

    Raises:
        ValueError: if there is none, saying where it was looked for.
    """
    if not may_have_store(settings):
        raise ValueError(
            f"there is no database {settings.database_file}: nothing was connected with this data "
            "folder. Run this in the folder of your .env (or one below it), or set "
            "RALIS_DATA_DIR; `ralis connect --project N` makes a new one"
        )
    return create_store(settings)


def create_handover(settings: Settings, *, is_authenticated: bool) -> Handover | None:
    """What takes the token that Label Studio hands over; None where one is configured.

    Args:
        settings: say where Label Studio is.
        is_authenticated: whether only Label Studio can call `/setup`.
    """
    if settings.api_key is not None:
        return None
    from ralis_backend.labelstudio.token_file import Handover, accepts

    addresses = (settings.label_studio_url, settings.label_studio_public_url)
    return Handover(
        _token_file(settings),
        [address for address in addresses if address],
        partial(accepts, settings.label_studio_url, network=create_network(settings)),
        may_replace=is_authenticated,
    )


def create_client(settings: Settings) -> LabelStudioClient:
    """Label Studio's API with the configured token, else with the one that it hands over."""
    from ralis_backend.labelstudio.client import LabelStudioClient

    api_key = settings.api_key or _token_file(settings).read
    return LabelStudioClient(settings.label_studio_url, api_key, network=create_network(settings))


def create_network(settings: Settings) -> Network:
    """Certificates and proxies of the settings."""
    from ralis_backend.labelstudio.network import Network

    proxies = {"http": settings.http_proxy, "https": settings.https_proxy}
    certificates = (settings.ssl_cert_file, settings.requests_ca_bundle)
    return Network(
        tuple(path for path in certificates if path),
        {scheme: it.get_secret_value() for scheme, it in proxies.items() if it},
        settings.no_proxy,
    )


def create_address_book(settings: Settings) -> AddressBook:
    """The addresses that Label Studio gives as its own."""
    from ralis_backend.labelstudio.address_book import AddressBook

    return AddressBook(settings.data_dir / "label-studio-addresses.json")


def _token_file(settings: Settings) -> TokenFile:
    from ralis_backend.labelstudio.token_file import TokenFile

    return TokenFile(settings.data_dir / "label-studio-token")


def create_fetcher(settings: Settings, client: LabelStudioClient) -> ImageFetcher:
    """Images through Label Studio and from the allowed hosts, cached in the data folder."""
    from ralis_backend.labelstudio.fetcher import ImageFetcher

    return ImageFetcher(
        client,
        settings.data_dir / "images",
        int(settings.cache_bytes),
        settings.image_hosts,
        settings.upload_projects,
        settings.label_studio_public_url,
        create_address_book(settings).known,
        settings.local_folders,
    )


def create_tool(settings: Settings) -> LabelStudioTool:
    """Label Studio as the worker sees it."""
    from ralis_backend.labelstudio.tool import LabelStudioTool

    client = create_client(settings)
    fetcher = create_fetcher(settings, client)
    return LabelStudioTool(client, fetcher, create_setup(settings), settings.region_label)


def create_setup(settings: Settings) -> ProjectSetup:
    """What prepares projects of Label Studio for this backend."""
    from ralis_backend.labelstudio.setup import ProjectSetup

    password = settings.auth_password
    return ProjectSetup(
        create_client(settings),
        backend_url=settings.backend_url,
        user=settings.auth_user,
        password=None if password is None else password.get_secret_value(),
        webhook_headers=webhook_headers(settings),
        region_label=settings.region_label,
    )


def create_webhook_secret(settings: Settings) -> WebhookSecret | None:
    """What projects' webhooks carry; None where callers need no credentials."""
    if not settings.has_credentials:
        return None
    from ralis_backend.labelstudio.webhook_secret import WebhookSecret

    return WebhookSecret(settings.data_dir / "webhook-secret")


def webhook_headers(settings: Settings) -> Callable[[str], Mapping[str, str]]:
    """A project's uid -> what its webhooks must carry: Label Studio leaves basic auth out there."""
    secret = create_webhook_secret(settings)
    return (lambda _uid: {}) if secret is None else secret.headers


def create_learner(settings: Settings) -> Learner:
    """The web process's learner; on the CPU unless a device is named, since web workers fork."""
    from ralis_backend.core.policy.registry import check_usable, unused_policies
    from ralis_backend.online.learner import Learner

    check_usable(settings.strategy, settings.policies_dir)
    for text in unused_policies(settings.policies_dir):
        logger.warning("%s", text)
    fetcher = create_fetcher(settings, create_client(settings))
    return Learner(
        create_store(settings),
        ranking_config(settings, "cpu" if settings.device == "auto" else settings.device),
        fetcher.fetch,
        settings.suggestions_per_image,
        settings.background_label,
    )


def segmenter_spec(settings: Settings, num_classes: int = 1) -> SegmenterSpec:
    """Which segmenter is trained; each project has its own number of classes."""
    from ralis_backend.core.segmenter import SegmenterSpec

    return SegmenterSpec(
        num_classes, settings.architecture, settings.encoder, settings.initial_weights
    )


def check_segmenter(settings: Settings) -> None:
    """Refuse a file of encoder weights that does not fit, before anything else is done.

    Raises:
        ValueError: saying what does not fit.
    """
    if settings.has_weights_file:  # else torch, which takes seconds, is not needed here
        from ralis_backend.core.segmenter import build

        build(segmenter_spec(settings))


def ranking_config(settings: Settings, device: str) -> RankingConfig:
    """How images are cut and ranked, on `device`."""
    from ralis_backend.online.choosing import RankingConfig

    return RankingConfig(
        strategy=settings.strategy,
        policies_dir=settings.policies_dir,
        policy_pool=settings.policy_pool,
        region_size=settings.region_size,
        regions_per_round=settings.regions_per_round,
        spec=segmenter_spec(settings),
        device=device,
        seed=settings.seed,
    )


def find_device(name: str) -> str:
    """`auto` -> `cuda` where torch can use it, else `mps` where a trial works, else `cpu`.

    Any other name as it is, once a number was put there and read again.

    Raises:
        UnavailableError: if others have taken all of it.
        ValueError: if the machine, or this torch, has no such device.
    """
    if name != "auto":
        _try_device(name)
        return name
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        from ralis_backend.core.segmenter.trial import why_not

        reason = why_not("mps")
        if reason is None:
            return "mps"
        logger.warning("mps is there and not used, since a trial failed: %s", reason)
    return "cpu"


def _try_device(name: str) -> None:
    import torch

    try:
        torch.ones(1, device=name).item()
    except Exception as error:  # torch raises whatever its backends do
        why = str(error).strip().partition("\n")[0]
        is_taken = re.search("out of memory|busy", why) is not None
        raise (UnavailableError if is_taken else ValueError)(
            f"device {name!r} cannot be used: {why}; expected auto, which takes the best that "
            "works here, cpu, which always works, or the name of one that this machine has, such "
            "as cuda:0 (set by --device, or RALIS_DEVICE)"
        ) from error
