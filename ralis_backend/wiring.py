"""Settings -> the objects that several commands or the web server need.

What one command alone needs is made there: the worker in `cli/worker`, and the web process never
loads it.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from ralis_backend.settings import Settings

if TYPE_CHECKING:
    from ralis_backend.core.segmenter import SegmenterSpec
    from ralis_backend.labelstudio.client import LabelStudioClient
    from ralis_backend.labelstudio.fetcher import ImageFetcher
    from ralis_backend.labelstudio.setup import ProjectSetup
    from ralis_backend.labelstudio.token_file import TokenFile
    from ralis_backend.labelstudio.tool import LabelStudioTool
    from ralis_backend.online.choosing import RankingConfig
    from ralis_backend.online.learner import Learner
    from ralis_backend.online.store import Store


def create_store(settings: Settings) -> Store:
    """The store in the data folder, its tables up to date, without an open connection.

    Forked web workers must not share connections: each opens its own on first use.
    """
    from ralis_backend.online.store import Store

    settings.data_dir.mkdir(parents=True, exist_ok=True)
    store = Store.open(settings.database_url, settings.data_dir / "blobs")
    store.close()
    return store


def create_tokens(settings: Settings) -> TokenFile | None:
    """Where the token is kept that Label Studio hands over; None where one is configured."""
    return None if settings.api_key is not None else _token_file(settings)


def create_client(settings: Settings) -> LabelStudioClient:
    """Label Studio's API with the configured token, else with the one that it hands over."""
    from ralis_backend.labelstudio.client import LabelStudioClient

    api_key = settings.api_key or _token_file(settings).read
    return LabelStudioClient(settings.label_studio_url, api_key)


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


def webhook_headers(settings: Settings) -> dict[str, str]:
    """What Label Studio must send with each webhook: it leaves its basic authentication out."""
    if settings.auth_user is not None and settings.auth_password is not None:
        pair = f"{settings.auth_user}:{settings.auth_password.get_secret_value()}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    if settings.auth_token is not None:
        return {"Authorization": f"Bearer {settings.auth_token.get_secret_value()}"}
    return {}


def create_learner(settings: Settings) -> Learner:
    """The web process's learner; on the CPU unless a device is named, since web workers fork."""
    from ralis_backend.core.policy.registry import check_strategy
    from ralis_backend.online.learner import Learner

    check_strategy(settings.strategy, settings.policies_dir)
    fetcher = create_fetcher(settings, create_client(settings))
    return Learner(
        create_store(settings),
        ranking_config(settings, "cpu" if settings.device == "auto" else settings.device),
        fetcher.fetch,
        settings.suggestions_per_image,
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
    """`auto` -> `cuda` where torch can use it, else `cpu`; any other name as it is."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
