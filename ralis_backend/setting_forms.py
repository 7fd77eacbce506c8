"""The forms that settings are written in: addresses, hosts, sizes. Errors do not say the value."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_LABEL = r"[^\W_](?:[\w-]*\w)?"  # Compose's names of services have underscores
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_IP6 = re.compile(r"[0-9a-f:.]*:[0-9a-f:.]*(?:%[\w.-]+)?")
_HOST_ENTRY = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_SIZE = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})? ?(?:[kmgtp]i?b?|b)?", re.IGNORECASE)


def unquoted(value: str) -> str:
    """The value, if it is not in quotes.

    Raises:
        ValueError: if it is; `.env` drops quotes, so that something else kept them.
    """
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        raise ValueError(
            "is in quotes, which belong to the value here (`docker run --env-file` keeps them); "
            "leave them out"
        )
    return value


def http_address(value: str) -> str:
    """The address of a server, maybe with a path, without a slash at its end.

    Raises:
        ValueError: if it is none, or has a query or a fragment.
    """
    if not _is_http_address(value):
        raise ValueError(
            "expected an address that begins with http:// or https://, then a host, maybe a port "
            "(1 to 65535) and a path, without spaces, ? and #; for example http://localhost:8080"
        )
    return value.rstrip("/")


def proxy_address(value: str) -> str:
    """The address of an HTTP proxy; `http://` where it says nothing.

    Raises:
        ValueError: if it is none, or has a path.
    """
    address = value if "://" in value else f"http://{value}"
    if not _is_http_address(address) or urlsplit(address).path.strip("/"):
        raise ValueError(
            "expected the address of an HTTP proxy, http://host:port or "
            "http://user:password@host:port; in the password / ? # @ are written %2F %3F %23 %40"
        )
    return address


def image_hosts(value: str) -> tuple[str, ...]:
    """Hosts between commas, each a name, an IP address or `*.` and a name.

    Raises:
        ValueError: if one is something else, which would never be a host.
    """
    hosts = tuple(host.strip().lower() for host in value.split(",") if host.strip())
    if not all(_HOST_ENTRY.fullmatch(host) or _IP6.fullmatch(host) for host in hosts):
        raise ValueError(
            "expected names of hosts, comma-separated, without http://, port, path, spaces and "
            "quotes; *. before a name means every host below it. For example "
            "images.example.com,*.cdn.example.com,10.0.0.7"
        )
    return hosts


def byte_size(value: str) -> str:
    """A number of bytes as `pydantic.ByteSize` takes it, which reads only what it begins with.

    Raises:
        ValueError: if it is none as a whole.
    """
    if not _SIZE.fullmatch(value.strip()):
        raise ValueError(
            "expected bytes, or a number (with a point, not a comma) and a unit such as MB, MiB, "
            "GB or GiB, for example 2GiB or 1.5GiB"
        )
    return value.strip()


def _is_http_address(value: str) -> bool:
    if re.search(r"[\s\x00-\x1f\x7f?#\\]", value):
        return False
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # of a port that is no number, or a bracket that is not closed
        return False
    if parts.scheme not in ("http", "https") or port == 0:
        return False
    return bool(_IP6.fullmatch(host)) or (bool(_NAME.fullmatch(host)) and _has_ascii_form(host))


def _has_ascii_form(host: str) -> bool:
    if host.isascii():
        return True
    from httpx import URL, InvalidURL

    try:
        return bool(URL(f"http://{host}").raw_host)
    except InvalidURL:
        return False
