"""Hosts as addresses, headers and settings write them -> the form in which they are compared."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

_NAME = re.compile(r"[a-z0-9._-]*")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def ip_of(host: str) -> Address | None:
    """The IP address that a host is written as, in brackets or not; None if it is a name.

    `::ffff:192.0.2.7`, as a socket that listens on `::` calls its IPv4 callers, is 192.0.2.7. The
    zone of a link-local address is left out.
    """
    try:
        ip = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


@lru_cache(maxsize=1024)
def host_form(host: str) -> str:
    """The one form of a host: an IP address as `ip_of` knows it, or a name in small ASCII letters.

    A name has no dot at its end; other letters are encoded as httpx sends them (IDNA 2008).

    Raises:
        ValueError: if it is neither.
    """
    from httpx import URL, InvalidURL

    ip = ip_of(host)
    if ip is not None:
        return str(ip)
    try:
        name = URL(scheme="http", host=host.lower().removesuffix(".")).raw_host.decode("ascii")
    except InvalidURL as error:
        raise ValueError(f"{host[:100]!r} is no name of a host: {error}") from None
    encoded = (label[4:] for label in name.split(".") if label.startswith("xn--"))
    is_name = _NAME.fullmatch(name) and all(  # xn--a stands for no letter
        it.encode().decode("punycode").isprintable() for it in encoded
    )
    if not is_name:
        raise ValueError(f"{host[:100]!r} is no name of a host")
    return name


def host_of(address: str) -> str:
    """The host of an http(s) address in its one form; empty where it has none.

    Raises:
        ValueError: if it is no address.
    """
    from httpx import URL, InvalidURL

    try:
        return host_form(URL(address).raw_host.decode("ascii"))
    except InvalidURL as error:
        raise ValueError(str(error)) from None


def is_this_machine(host: str) -> bool:
    """Whether a host is `localhost` or a loopback address."""
    ip = ip_of(host)
    return host == "localhost" if ip is None else ip.is_loopback
