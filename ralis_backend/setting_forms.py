"""The forms that settings are written in: addresses, hosts, sizes. Errors do not say the value."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import quote, urlsplit

from ralis_backend.hosts import host_form, host_of

_LABEL = r"[^\W_](?:[\w-]*\w)?"  # Compose's names of services have underscores
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_HOST_ENTRY = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_SIZE = re.compile(
    r"(?:[0-9]{1,15}(?:\.[0-9]{1,9})?|\.[0-9]{1,9})\s*(?:[kmgtp]i?b?|b)?", re.IGNORECASE
)


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
        ValueError: if it is none, or has a query, a fragment, or a user or password, which would
            stand in messages and in what members of a project read.
    """
    if not _is_http_address(value):
        raise ValueError(
            "expected an address that begins with http:// or https://, then a host, maybe a port "
            "(1 to 65535) and a path, without spaces, ? and #; for example http://localhost:8080"
        )
    if "@" in urlsplit(value).netloc:
        raise ValueError("expected an address without user and password")
    return value.rstrip("/")


def proxy_address(value: str) -> str:
    """The address of an HTTP proxy; `http://` where it says nothing.

    Signs of its user and password that addresses do not have are percent-encoded, but for / ? # @,
    which end them.

    Raises:
        ValueError: if it is none, or has a path.
    """
    scheme, _, rest = (value if "://" in value else f"http://{value}").partition("://")
    credentials, at, place = rest.rpartition("@")
    credentials = re.sub(r"[\\\[\] ]", lambda sign: quote(sign[0]), credentials)
    address = f"{scheme}://{credentials}{at}{place}"
    if not _is_http_address(address) or urlsplit(address).path.strip("/"):
        raise ValueError(
            "expected the address of an HTTP proxy, http://host:port or "
            "http://user:password@host:port; in the password / ? # @ are written %2F %3F %23 %40"
        )
    return address


def image_hosts(value: str) -> tuple[str, ...]:
    """Hosts between commas, each a name in ASCII, an IP address or `*.` and a name.

    Raises:
        ValueError: if one is something else, which would never be a host.
    """
    hosts = (host.strip().lower() for host in value.split(","))
    try:
        return tuple(_image_host(host) for host in hosts if host)
    except ValueError:
        raise ValueError(
            "expected names of hosts, comma-separated, without http://, port, path, spaces and "
            "quotes; *. before a name means every host below it. For example "
            "images.example.com,*.cdn.example.com,10.0.0.7"
        ) from None


def _image_host(host: str) -> str:
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        return host_form(str(ip_address(host)))
    name = host.removeprefix("*.")
    if not _HOST_ENTRY.fullmatch(name):
        raise ValueError("no name")
    return host.removesuffix(name) + host_form(name)


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
    try:
        return (":" in host or bool(_NAME.fullmatch(host))) and bool(host_of(value))
    except ValueError:
        return False
