"""The environment and `.env`, read once into `Settings`; everyone else gets plain values.

Only `app` and `cli` import this.
"""

from __future__ import annotations

import difflib
import io
import logging
import math
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from dotenv import dotenv_values
from pydantic import (
    AliasChoices,
    ByteSize,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ralis_backend.env_lines import LineError, check_lines
from ralis_backend.setting_forms import (
    byte_size,
    http_address,
    image_hosts,
    proxy_address,
    unquoted,
)

logger = logging.getLogger(__name__)

ENV_FILE = Path(".env")
DATA_DIR = Path(".ralis")
PREFIX = "RALIS_"
_ENCODING = "utf-8-sig"  # editors of Windows write a byte order mark
_OURS = (PREFIX, "LABEL_STUDIO_")
_MAY_HAVE_HASH = ("RALIS_AUTH_USER", "RALIS_DATABASE_URL")
"""Beside secrets: what follows a # may belong to the value."""

_NETWORK = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
_MOST_DAYS = 3650
"""Of any time that is set; clocks and dates end somewhere beyond."""
_BLOB_LINK = re.compile(r"\.\./\.\./blobs/[0-9a-f]+")


class SettingsError(ValueError):
    """Settings that cannot be used; the message names each, what was expected and the fix."""


class Settings(BaseSettings):
    """Everything that can be set. `load_settings` reads it with readable errors."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding=_ENCODING,
        env_ignore_empty=True,
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    label_studio_url: str = Field(
        "http://localhost:8080",
        validation_alias="LABEL_STUDIO_URL",
        description="Where the backend reaches Label Studio",
    )
    label_studio_public_url: str | None = Field(
        None,
        validation_alias="LABEL_STUDIO_PUBLIC_URL",
        description="Where browsers reach Label Studio, its own `LABEL_STUDIO_HOST`, if that is "
        "another address; without an API key a token is taken from there alone",
    )
    label_studio_api_key: SecretStr | None = Field(
        None,
        validation_alias="LABEL_STUDIO_API_KEY",
        description="Personal access token or legacy token (default: the one that Label Studio "
        "hands over when it connects, which works in-place and where legacy tokens are on)",
    )
    ssl_cert_file: Path | None = Field(
        None,
        validation_alias="SSL_CERT_FILE",
        description="Certificate authorities (PEM) that are trusted besides the public ones",
    )
    requests_ca_bundle: Path | None = Field(
        None, validation_alias="REQUESTS_CA_BUNDLE", description="The same, under its other name"
    )
    https_proxy: SecretStr | None = Field(
        None,
        validation_alias="HTTPS_PROXY",
        description="Proxy for https addresses, e.g. `http://proxy.example.com:3128`; never for "
        "names without a dot and private addresses",
    )
    http_proxy: SecretStr | None = Field(
        None, validation_alias="HTTP_PROXY", description="The same for http addresses"
    )
    no_proxy: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias="NO_PROXY",
        description="Hosts that are reached without proxy: names, with all below, or networks; "
        "comma-separated",
    )
    data_dir: Path = Field(
        DATA_DIR,
        description="Masks, weights, caches and the database; in the folder of `.env`, else in the "
        "current one",
    )
    database_url: str = Field(
        "",
        description="SQLAlchemy address of a SQLite or PostgreSQL database "
        "(default: `ralis.db` in the data folder)",
    )
    mode: Literal["crops", "in-place"] = Field(
        "in-place",
        description="`crops`: each region is a task of its own; `in-place`: boxes on whole images "
        "(default: `crops` with an API key, `in-place` without)",
    )
    strategy: str = Field(
        "default",
        description="How regions are ranked once a model is trained: a built-in strategy or a "
        "trained policy, e.g. `bald` or `ralis`",
    )
    policies_dir: Path = Field(
        Path("policies"),
        description="Folder of trained policies; those that come with the backend are found anyway",
    )
    policy_pool: Literal["whole", "training"] = Field(
        "whole",
        description="A trained policy ranks the `whole` pool, or picks from random pools as in "
        "its `training`",
    )
    trust_rounds: int = Field(
        4,
        ge=0,
        le=1_000_000,
        description="Whoever ranks is tested on the project's labels again after so many rounds: "
        "a trained policy must prove itself, a formula must not lose to chance; 0: no test",
    )
    random_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Crops mode: share of the regions handed out that is drawn at random, to "
        "measure what the model knows without bias",
    )
    region_size: Annotated[tuple[int, int], NoDecode] = Field(
        (128, 128), description="Height x width of a region in pixels"
    )
    regions_per_round: int = Field(
        24,
        ge=1,
        le=1_000_000,
        description="New labelled regions that start a training; size of a round",
    )
    improve_minutes: float = Field(
        30.0,
        ge=0,
        le=_MOST_DAYS * 24 * 60,
        description="While nothing else is to be done, the model is trained on for so long after a "
        "project's newest label; 0: not at all",
    )
    learner: str = Field(
        "paint",
        description="What the model learns from: `paint`, what people painted; "
        "`paint+unlabelled`, also pixels that nobody labelled",
    )
    suggestions_per_image: int = Field(
        3, ge=1, le=50, description="In-place mode: regions suggested on an image"
    )
    encoder: str = Field("mobilenet_v2", description="Encoder of segmentation-models-pytorch")
    encoder_weights: str = Field(
        "imagenet",
        description="Weights the encoder starts from: their name, a `.safetensors` file, or `none` "
        "for random ones",
    )
    architecture: str = Field(
        "FPN",
        description="Architecture of segmentation-models-pytorch, or a registered segmenter",
    )
    device: str = Field("auto", description="`auto`, `cpu`, `cuda`, `cuda:1` or `mps`")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of everything random")
    background_label: str | None = Field(
        None,
        description="What unpainted pixels of a labelled region are, in projects that choose none "
        "themselves: a label, or a class of its own (default: void; with one label `Background`)",
    )
    region_label: str = Field(
        "Suggested region", min_length=1, description="In-place mode: label of the suggested boxes"
    )
    auth_user: str | None = Field(None, description="User name for basic authentication")
    auth_password: SecretStr | None = Field(
        None, description="Password for basic authentication; Label Studio sends it"
    )
    auth_token: SecretStr | None = Field(
        None, description="Bearer token, accepted besides basic authentication"
    )
    allow_anonymous: bool = Field(
        False, description="Serve other machines without authentication (not advised)"
    )
    backend_url: str | None = Field(
        None,
        description="Where Label Studio reaches this backend (default: the address under which it "
        "was connected)",
    )
    bands: Annotated[tuple[int, ...], NoDecode] = Field(
        (),
        description="Which bands of pictures with more than three are red, green, blue (or one, as "
        "grey), counted from 1, e.g. `4,3,2` (default: the first three)",
    )
    intensity_range: Annotated[tuple[float, float] | None, NoDecode] = Field(
        None,
        description="Values that are shown black and white in pictures of more than 8 bits, e.g. "
        "`0,4095` (default: measured once per project)",
    )
    image_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Hosts, besides Label Studio, that images may be fetched from: names or IP "
        "addresses without port, `*.example.com` for all below; comma-separated",
    )
    upload_projects: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Projects, besides a task's own, whose uploaded files it may show; ids, "
        "comma-separated, `*` for all",
    )
    local_folders: Annotated[tuple[tuple[str, str], ...], NoDecode] = Field(
        (),
        description="Folders of local files that tasks of a project may show, from where `?d=` "
        "begins: `3:scans,17:xray/a,*:shared`; a folder `*` is any (default: whatever Label Studio "
        "gives the token)",
    )
    cache_bytes: ByteSize = Field(
        ByteSize(2 * 1024**3), ge=0, description="Bound of the image cache on disk, e.g. `2GiB`"
    )
    max_request_bytes: ByteSize = Field(
        ByteSize(256 * 1024**2), ge=1024, description="Larger requests are refused, e.g. `256MiB`"
    )
    sync_seconds: float = Field(
        300.0,
        ge=1,
        le=_MOST_DAYS * 24 * 3600,
        description="How often annotations are read through the API, seconds",
    )
    stall_seconds: float = Field(
        1800.0,
        ge=60,
        le=_MOST_DAYS * 24 * 3600,
        description="A step of the worker that makes no progress for so long is ended, seconds",
    )
    keep_versions: int = Field(
        10,
        ge=1,
        le=1_000_000,
        description="Weights of so many newest versions are kept, besides those in use, published, "
        "their parents, the newest accepted, and what was exported",
    )
    keep_events_days: float = Field(
        7.0,
        gt=0,
        le=_MOST_DAYS,
        description="Webhooks of projects that are not connected are kept for so many days",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="`DEBUG`, `INFO`, `WARNING` or `ERROR`"
    )
    metrics_dir: Path | None = Field(
        None,
        validation_alias=AliasChoices("PROMETHEUS_MULTIPROC_DIR"),
        description="Where several web processes share their metrics; `ralis serve` sets it",
    )

    @field_validator("region_size", mode="before")
    @classmethod
    def _parse_region_size(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*", value)
        if match is None:
            raise ValueError("expected height x width in pixels, for example 128x128")
        return int(match[1]), int(match[2])

    @field_validator("region_size")
    @classmethod
    def _check_region_size(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not all(16 <= side <= 8192 for side in value):
            raise ValueError(
                f"{value[0]}x{value[1]} is out of range: each side must be 16 to 8192 pixels"
            )
        return value

    @field_validator(
        *("data_dir", "policies_dir", "ssl_cert_file", "requests_ca_bundle", "encoder_weights"),
        mode="before",
    )
    @classmethod
    def _expand_home(cls, value: Any) -> Any:
        return os.path.expanduser(value) if isinstance(value, str) else value

    @field_validator("ssl_cert_file", "requests_ca_bundle")
    @classmethod
    def _check_certificates(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                value.stat()
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or "no path"
                raise ValueError(
                    f"there is no file {value} that can be read ({reason}); expected certificates "
                    "in PEM form"
                ) from None
        return value

    @field_validator("https_proxy", "http_proxy")
    @classmethod
    def _check_proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        return SecretStr(proxy_address(value.get_secret_value()))

    @field_validator("no_proxy", mode="before")
    @classmethod
    def _split_no_proxy(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(entry for entry in re.split(r"[\s,]+", value.lower()) if entry)
        return value

    @field_validator("bands", mode="before")
    @classmethod
    def _parse_bands(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        bands = [part.strip() for part in value.split(",")]
        if len(bands) not in (1, 3) or not all(re.fullmatch("[1-9][0-9]{0,3}", it) for it in bands):
            raise ValueError("expected three bands, or one, counted from 1, for example 3,2,1")
        return tuple(int(band) for band in bands)

    @field_validator("intensity_range", mode="before")
    @classmethod
    def _parse_range(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            low, high = (float(part) for part in value.split(","))
        except ValueError:
            low, high = math.nan, math.nan
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError("expected two numbers, the lower one first, for example 0,4095")
        return low, high

    @field_validator("image_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: Any) -> Any:
        if isinstance(value, str):
            return image_hosts(value)
        return value

    @field_validator("cache_bytes", "max_request_bytes", mode="before")
    @classmethod
    def _check_size(cls, value: Any) -> Any:
        return byte_size(value) if isinstance(value, str) else value

    @field_validator("upload_projects", mode="before")
    @classmethod
    def _split_projects(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        projects = tuple(project.strip() for project in value.split(",") if project.strip())
        if not all(re.fullmatch(r"\*|[1-9][0-9]{0,17}", project) for project in projects):
            raise ValueError("expected ids of projects, comma-separated, for example 3,17, or *")
        return projects

    @field_validator("local_folders", mode="before")
    @classmethod
    def _split_folders(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part.strip().partition(":") for part in value.split(",") if part.strip()]
        folders = tuple(
            (project.strip(), folder.strip().strip("/")) for project, _, folder in parts
        )
        for project, folder in folders:
            is_project = re.fullmatch(r"\*|[1-9][0-9]{0,17}", project)
            if not is_project or not folder or {"", ".", ".."} & set(folder.split("/")):
                raise ValueError(
                    "expected a project's id (or *), a colon and a folder (or *) each, "
                    "comma-separated, for example 3:scans,17:xray/a,*:shared"
                )
        return folders

    @field_validator("auth_user")
    @classmethod
    def _check_user(cls, value: str | None) -> str | None:
        if value is not None and ":" in value:
            raise ValueError("has a colon, where basic authentication ends the user's name")
        return value if value is None else _sent_as_it_is(value)

    @field_validator("auth_password")
    @classmethod
    def _check_password(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _sent_as_it_is(value.get_secret_value())
        return value

    @field_validator("auth_token")
    @classmethod
    def _check_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("expected letters, digits and signs of ASCII, without spaces")
        return value

    @field_validator("label_studio_url", "label_studio_public_url", "backend_url")
    @classmethod
    def _check_url(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        try:
            return http_address(value)
        except ValueError as error:
            if "@" not in value:
                raise
            secrets = (
                "RALIS_AUTH_USER and RALIS_AUTH_PASSWORD are what Label Studio sends to the backend"
                if info.field_name == "backend_url"
                else "LABEL_STUDIO_API_KEY is what the backend sends to Label Studio"
            )
            raise ValueError(f"{error}; {secrets}") from None

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("*", mode="before")  # the last one of its mode runs first
    @classmethod
    def _refuse_quotes(cls, value: Any) -> Any:
        return unquoted(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fill_in(self) -> Settings:
        if (self.auth_user is None) != (self.auth_password is None):
            raise ValueError("RALIS_AUTH_USER and RALIS_AUTH_PASSWORD go together: set both")
        if "mode" not in self.model_fields_set:
            self.mode = "in-place" if self.label_studio_api_key is None else "crops"
        elif self.mode == "crops" and self.label_studio_api_key is None:
            raise ValueError(
                "RALIS_MODE=crops needs LABEL_STUDIO_API_KEY: the backend makes tasks in Label "
                "Studio; set the key, or RALIS_MODE=in-place"
            )
        if not self.database_url:
            self.database_url = f"sqlite:///{self.database_file}"
        return self

    @property
    def database_file(self) -> Path:
        """The database of the data folder, where no other is named."""
        return self.data_dir.resolve() / "ralis.db"

    @property
    def has_own_database(self) -> bool:
        """Whether the database is the data folder's file."""
        return self.database_url == f"sqlite:///{self.database_file}"

    @property
    def has_credentials(self) -> bool:
        """Whether callers must authenticate."""
        return self.auth_password is not None or self.auth_token is not None

    @property
    def api_key(self) -> str | None:
        """The Label Studio token in the clear."""
        key = self.label_studio_api_key
        return None if key is None else key.get_secret_value()

    @property
    def initial_weights(self) -> str | None:
        """`encoder_weights` as the segmenter takes it: None for random ones."""
        return None if self.encoder_weights.lower() in ("none", "random") else self.encoder_weights

    @property
    def has_weights_file(self) -> bool:
        """Whether `encoder_weights` is a file's path, and no name that the hub knows."""
        return self.encoder_weights.endswith(".safetensors")


def load_settings(env_file: Path | None = None, **overrides: Any) -> Settings:
    """The settings of the environment and of `env_file`, the environment first.

    Folders that `env_file` names, and the data folder where none is named, lie beside it.

    Args:
        env_file: lines of NAME=value; need not exist. None: `find_env_file` finds it.
        overrides: fields that come before both, where they are not None.

    Raises:
        SettingsError: naming every setting that cannot be used, and misspelt names in `env_file`.
    """
    env_file = env_file or find_env_file(Path.cwd())
    _check_names(env_file)
    try:
        given = {name: value for name, value in overrides.items() if value is not None}
        given = {**_folders_beside(env_file), **given}
        settings = Settings(_env_file=env_file, **given)  # type: ignore[call-arg]
    except ValidationError as error:
        raise SettingsError("; ".join(_describe(detail) for detail in error.errors())) from None
    _pass_on(env_file)
    use_restored_hub_cache(settings.data_dir / "hf-cache")
    return settings


def find_env_file(folder: Path) -> Path:
    """The `.env` of a folder or of the nearest one above it that sets something of ours.

    One above, or a data folder there, must be the user's own or root's: whoever may write into a
    shared folder must not choose where the token is sent.

    Returns:
        Its path; beside the nearest data folder where there is none, else in `folder`.

    Raises:
        SettingsError: if a nearer one cannot be read and may be ours. One above is passed over
            where the environment sets something of ours, or nothing in it looks like ours.
    """
    for place in (folder, *folder.parents):
        path = ENV_FILE if place == Path.cwd() else place / ENV_FILE
        if _is_ours(path, place == folder):
            return path
    for place in folder.parents:
        if _has_our_data(place):
            return place / ENV_FILE
    return ENV_FILE if folder == Path.cwd() else folder / ENV_FILE


def _is_ours(path: Path, is_here: bool) -> bool:
    try:
        if not path.is_file() or not (is_here or _is_trusted(path)):
            return False
    except OSError:  # a folder above that this user may not look into
        return False
    try:
        return any(_is_name_of_ours(name) for name in _values(path))
    except SettingsError as error:
        if is_here or not _may_be_passed_over(path, error):
            raise
        return False


def _has_our_data(folder: Path) -> bool:
    try:
        data_dir = folder / DATA_DIR
        return (data_dir / "ralis.db").is_file() and _is_trusted(data_dir)
    except OSError:  # this user may not look into it: somebody else's
        return False


def _may_be_passed_over(path: Path, error: SettingsError) -> bool:
    """Whether a file further up that is no UTF-8, or cannot be read, need not end a command.

    It names nothing of ours; or nobody knows what it names, and the environment sets us up.
    """
    try:
        content = path.read_bytes()
    except OSError:
        is_set_up = any(
            value and name.upper().startswith(_OURS) for name, value in os.environ.items()
        )
        if is_set_up:
            logger.warning("passed over: %s", error)
        return is_set_up
    names = content.replace(b"\0", b"").upper()  # of UTF-16, too
    return not any(start.encode() in names for start in _OURS)


def _values(env_file: Path) -> dict[str, str | None]:
    """What an existing `env_file` sets.

    Raises:
        SettingsError: if it cannot be read, is no text in UTF-8, or has a line of ours that would
            be dropped (`env_lines`).
    """
    otherwise = "move it away, or put a .env that sets something of ralis into a nearer folder"
    try:
        content = env_file.read_bytes()
        text = content.decode(_ENCODING)
    except OSError as error:
        raise SettingsError(
            f"{env_file} cannot be read ({error.strerror}); make it readable for the user that "
            f"runs ralis, {otherwise}"
        ) from None
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # of another encoding, if there is one
        raise SettingsError(
            f"{env_file} is no text in UTF-8; save it in this encoding, {otherwise}"
        )
    logging.getLogger("dotenv.main").setLevel(logging.ERROR)  # warns of others' lines each time
    try:
        check_lines(text, _is_name_of_ours, {*_secret_names(), *_MAY_HAVE_HASH}, os.environ)
    except LineError as error:
        raise SettingsError(f"line {error.number} of {env_file} {error}") from None
    return dotenv_values(stream=io.StringIO(text))


def _is_name_of_ours(name: str) -> bool:
    """Not of Label Studio or compose, whose names begin as some of ours do."""
    upper = name.upper()
    return upper.startswith(PREFIX) or (upper.startswith(_OURS) and upper in setting_names())


def _secret_names() -> set[str]:
    fields = Settings.model_fields
    return {
        variable
        for variable, name in setting_names().items()
        if SecretStr in (fields[name].annotation, *get_args(fields[name].annotation))
    }


def _is_trusted(path: Path) -> bool:
    return not hasattr(os, "getuid") or path.stat().st_uid in (0, os.getuid())


def _folders_beside(env_file: Path) -> dict[str, Path]:
    """The folders that `env_file` names, or that are named nowhere, as they lie beside it."""
    home = env_file.parent
    if home in (Path(), Path.cwd()):
        return {}
    values = _values(env_file) if env_file.is_file() else {}
    named = {name.upper(): value for name, value in values.items() if value}
    folders = {}
    for name in ("data_dir", "policies_dir"):
        if not os.environ.get(_variable(name)):
            default = str(Settings.model_fields[name].default)
            folders[name] = home / os.path.expanduser(named.get(_variable(name)) or default)
    return folders


def setting_names() -> dict[str, str]:
    """Environment variable -> field name, in the order they are documented."""
    return {_variable(name): name for name in Settings.model_fields}


def settings_table() -> str:
    """All settings as a Markdown table: name, default, meaning."""
    rows = ["| name | default | meaning |", "| --- | --- | --- |"]
    for variable, name in setting_names().items():
        field = Settings.model_fields[name]
        rows.append(f"| `{variable}` | {_default(field.default)} | {field.description} |")
    return "\n".join(rows) + "\n"


def share_metrics(directory: Path) -> None:
    """Let the web processes forked from this one keep their metrics in `directory`.

    To be called before prometheus_client is imported: it reads the variable then.
    """
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(directory))


def environment_with(defaults: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child process: this one's, and `defaults` for what it leaves out."""
    return {**defaults, **os.environ}


def use_restored_hub_cache(copy: Path) -> None:
    """Make a Hugging Face cache usable that was copied without its symbolic links.

    Such a copy holds the links' targets as text, and the hub would hand out that text as weights.
    Where `HF_HUB_CACHE` is one, a cache of links to its files is made in `copy` and used instead.
    huggingface_hub reads the variable when it is imported; where it is already, it is told.
    """
    cache = Path(os.environ.get("HF_HUB_CACHE", "")).absolute()
    files = list(cache.glob("models--*/snapshots/*/*"))
    if not any(_link_target(path) for path in files):
        return
    for path in [*files, *cache.glob("models--*/refs/*")]:
        link = copy / path.relative_to(cache)
        link.parent.mkdir(parents=True, exist_ok=True)
        target = _link_target(path) or path.resolve()
        if not (link.is_symlink() and link.readlink() == target):
            link.unlink(missing_ok=True)
            with suppress(FileExistsError):  # another process was faster
                link.symlink_to(target)
    os.environ["HF_HUB_CACHE"] = str(copy.absolute())
    hub = sys.modules.get("huggingface_hub.constants")
    if hub is not None:
        hub.HF_HUB_CACHE = str(copy.absolute())  # type: ignore[attr-defined]


def _pass_on(env_file: Path) -> None:
    """What `env_file` sets for the Hugging Face hub, put where the hub reads it.

    huggingface_hub reads them when it is imported; where it is already, it is told of its cache.
    """
    if not env_file.is_file():
        return
    for name, value in _values(env_file).items():
        is_the_hubs = name.startswith("HF_") or name in _NETWORK
        if value and is_the_hubs and not os.environ.get(name):
            os.environ[name] = value = os.path.expanduser(value)
            hub = sys.modules.get("huggingface_hub.constants")
            if hub is not None and name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE"):
                setattr(hub, name, value if name == "HF_HUB_CACHE" else _is_yes(value))


def _is_yes(value: str) -> bool:
    return value.upper() in ("1", "ON", "YES", "TRUE")


def _link_target(path: Path) -> Path | None:
    """The blob that a file names as text where a link should be; None if it does not."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 200:
        return None
    text = path.read_bytes().decode(errors="replace")
    return (path.parent / text).resolve() if _BLOB_LINK.fullmatch(text) else None


def _sent_as_it_is(value: str) -> str:
    """A user or password that Label Studio sends as it was typed; the message keeps it secret.

    Label Studio strips spaces at the ends, and sends other letters than those of ASCII in an
    encoding of its own, or fails.
    """
    if not re.fullmatch(r"[ -~]*", value):
        raise ValueError(
            "Label Studio would send it otherwise than it is written here; expected letters, "
            "digits and signs of ASCII: `openssl rand -base64 24` makes a password"
        )
    if not value.strip() or value != value.strip():
        raise ValueError("Label Studio strips spaces at the ends; leave them out")
    return value


def _variable(name: str) -> str:
    alias = Settings.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        alias = str(alias.choices[0])
    return str(alias) if alias else PREFIX + name.upper()


def _check_names(env_file: Path) -> None:
    known = {name.upper() for name in setting_names()}
    known_here = {name for name in known if name.startswith(PREFIX)}
    if env_file.is_file():
        for name in _values(env_file):
            if name.upper().startswith(PREFIX) and name.upper() not in known:
                near = difflib.get_close_matches(name.upper(), known_here, n=1, cutoff=0.0)
                raise SettingsError(
                    f"{env_file} sets {name}, which is no setting; did you mean {near[0]}?"
                )
    for name in os.environ:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if name.startswith(PREFIX) and name not in known and near:
            logger.warning("%s is no setting and is ignored; did you mean %s?", name, near[0])


def _describe(detail: Any) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:
        return message
    place = str(detail["loc"][0])
    variable = _variable(place) if place in Settings.model_fields else place.upper()
    return f"{variable}: {message[:1].lower()}{message[1:]}"


def _default(value: Any) -> str:
    if value is None or value in ("", ()):
        return ""
    if isinstance(value, ByteSize):
        return f"`{value.human_readable().replace('.0', '')}`"
    if isinstance(value, tuple):
        return f"`{value[0]}x{value[1]}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
