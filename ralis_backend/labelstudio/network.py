"""How the backend reaches other servers: whom it trusts, and by way of which proxy.

`Network` is a value made of the settings; the environment itself is read nowhere else.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from ralis_backend.hosts import host_form, ip_of
from ralis_backend.labelstudio.addresses import may_connect

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Network:
    """The operator's certificates and proxies.

    certificates: files or folders of certificate authorities that are trusted besides the public
        ones.
    proxies: `http` and `https` -> the proxy's address, with user and password where it wants them.
    no_proxy: hosts that are reached without: names (with all names below), addresses, networks
        such as `10.0.0.0/8`, each with a port or without, `*` for all.
    """

    certificates: tuple[Path, ...] = ()
    proxies: Mapping[str, str] = field(default_factory=dict)
    no_proxy: Sequence[str] = ()

    @cached_property
    def ssl_context(self) -> ssl.SSLContext:
        """What certificates of servers are checked against.

        Raises:
            ValueError: if a file holds no certificate.
        """
        context = httpx.create_ssl_context(trust_env=False)
        for place in self.certificates:
            try:
                if place.is_dir():
                    context.load_verify_locations(capath=place)
                else:
                    context.load_verify_locations(cafile=place)
            except OSError as error:  # ssl.SSLError is one
                raise ValueError(
                    f"{place} holds no certificates that can be read ({error}); SSL_CERT_FILE and "
                    "REQUESTS_CA_BUNDLE name files in PEM form"
                ) from None
        return context

    def proxy_of(self, url: str) -> str | None:
        """The proxy for an address; None where it is reached directly.

        Never one for names without a dot, this machine, and private addresses: those lie on our
        side of the proxy.
        """
        parts = urlsplit(url)
        proxy, host = self.proxies.get(parts.scheme), _in_form(parts.hostname or "")
        if proxy is None or _is_near(host):
            return None
        port = parts.port or _PORTS.get(parts.scheme)
        return None if any(_covers(entry, host, port) for entry in self.no_proxy) else proxy


def _is_near(host: str) -> bool:
    address = ip_of(host)
    if address is not None:
        return not may_connect(str(address), is_named=False)
    return "." not in host or host.endswith(".localhost")


def _in_form(host: str) -> str:
    try:
        return host_form(host)
    except ValueError:
        return host


def _covers(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY means this host."""
    name, wanted_port = _split(entry.strip().lower())
    if not name or (wanted_port is not None and wanted_port != port):
        return False
    if name == "*":
        return True
    address = ip_of(host)
    if address is not None:
        try:
            return address in ipaddress.ip_network(name.strip("[]"), strict=False)
        except ValueError:
            return False
    suffix = _in_form(name.removeprefix("*").removeprefix("."))
    return host == suffix or host.endswith(f".{suffix}")


def _split(entry: str) -> tuple[str, int | None]:
    """An entry of NO_PROXY as name and port."""
    name, colon, port = entry.rpartition(":")
    if colon and port.isdecimal() and (":" not in name or name.endswith("]")):
        return name, int(port[:5])
    return entry, None
