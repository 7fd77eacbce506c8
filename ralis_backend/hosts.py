"""Hosts as addresses, headers and settings write them -> the form in which they are compared."""

from __future__ import annotations

import ipaddress

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


def is_this_machine(host: str) -> bool:
    """Whether a host is `localhost` or a loopback address."""
    ip = ip_of(host)
    return host == "localhost" if ip is None else ip.is_loopback
