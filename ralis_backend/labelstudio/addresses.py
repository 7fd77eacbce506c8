"""An IP address -> whether the backend may connect to it on behalf of a task.

IANA's registries of special-purpose addresses as a table of our own: `ipaddress` knows them
differently from one Python release to the next, and none of the ways in which an IPv6 address
carries an IPv4 one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

IPv4 = ipaddress.IPv4Address
IPv6 = ipaddress.IPv6Address
Address = IPv4 | IPv6
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


_NEVER = _networks(
    "0.0.0.0/8",  # this host
    "169.254.0.0/16",  # link-local, and clouds' metadata
    "224.0.0.0/3",  # multicast, reserved, broadcast
    "100.100.100.200/32",  # clouds' metadata and host services outside link-local
    "168.63.129.16/32",
    "192.0.0.192/32",
    "fd00:ec2::/32",
    "fd20:ce::254/128",
    "::/128",
    "fe80::/10",
    "ff00::/8",
)
_PRIVATE = _networks(
    "10.0.0.0/8",
    "100.64.0.0/10",  # shared by a carrier's customers
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.0.0.0/24",  # protocols
    "192.0.2.0/24",  # documentation
    "192.31.196.0/24",  # AS112
    "192.52.193.0/24",  # multicast relays
    "192.88.99.0/24",  # 6to4 relays
    "192.168.0.0/16",
    "192.175.48.0/24",  # AS112
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "2001::/23",  # protocols, Teredo among them
    "2001:db8::/32",  # documentation
    "2620:4f:8000::/48",  # AS112
    "3fff::/20",  # documentation
)
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_LAST_32_BITS = _networks("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")
"""IPv4-compatible, mapped and translated addresses, and those of NAT64."""
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")
_ISATAP = (0x00005EFE, 0x02005EFE)


def may_connect(address: str, *, is_named: bool) -> bool:
    """Whether the backend may connect there.

    Public addresses always; private ones where the operator named the host; this host's
    unspecified address, link-local and multicast ones, and clouds' metadata services never. An
    IPv6 address that carries an IPv4 one counts as the IPv4 address.

    Args:
        address: IPv4 or IPv6, with or without a zone.
        is_named: the operator named the host.

    Raises:
        ValueError: if it is no IP address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    carried = list(_carried(ip))
    if any(_is_in(it, _NEVER) for it in (ip, *carried)):
        return False
    return is_named or all(_is_public(it) for it in carried or [ip])


def _is_public(ip: Address) -> bool:
    return not _is_in(ip, _PRIVATE) and (isinstance(ip, IPv4) or ip in _GLOBAL_UNICAST)


def _is_in(ip: Address, networks: tuple[Network, ...]) -> bool:
    return any(ip in network for network in networks)


def _carried(ip: Address) -> Iterator[Address]:
    """What stands in an IPv6 address; itself too where it is not public whatever it carries."""
    if isinstance(ip, IPv4) or ip in (IPv6("::"), IPv6("::1")):
        return
    bits = int(ip)
    if _is_in(ip, _LAST_32_BITS):
        yield IPv4(bits & 0xFFFFFFFF)
    elif ip.sixtofour is not None:
        yield ip.sixtofour
    elif ip.teredo is not None:
        yield from ip.teredo
        yield ip
    elif ip in _LOCAL_NAT64:
        yield from _of_local_nat64(bits)
        yield ip
    elif bits >> 32 & 0xFFFFFFFF in _ISATAP:
        yield from (IPv4(bits & 0xFFFFFFFF), ip)


def _of_local_nat64(bits: int) -> Iterator[IPv4]:
    """The IPv4 address after 48, 56, 64 and 96 bits; bits 64 to 71 are left out (RFC 6052)."""
    octets = bits.to_bytes(16)
    without = octets[:8] + octets[9:]
    for content in (without[6:10], without[7:11], without[8:12], octets[12:]):
        candidate = IPv4(content)
        if int(candidate) >> 24 != 0:  # another position's padding
            yield candidate
