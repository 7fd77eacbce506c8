"""A certificate authority of our own, and a server's certificate of it, made with openssl."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

from tests.real_parts import missing


def make_certificates(folder: Path, *names: str) -> tuple[Path, ssl.SSLContext]:
    """The authority's PEM file, and what a server named so is wrapped in."""
    if shutil.which("openssl") is None:
        missing("openssl is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    ca, leaf = folder / "ca.pem", folder / "leaf.pem"
    _openssl(
        *("req", "-x509", *key, "-keyout", folder / "ca.key", "-out", ca),
        *("-subj", "/CN=Company authority", "-days", "2"),
        *("-addext", "keyUsage=critical,keyCertSign"),
    )
    request = folder / "leaf.csr"
    _openssl(
        *("req", *key, "-keyout", folder / "leaf.key", "-out", request, "-subj", "/CN=server"),
    )
    extensions = folder / "leaf.ext"
    hosts = ",".join(f"{'IP' if name[0].isdigit() else 'DNS'}:{name}" for name in names)
    extensions.write_text(f"subjectAltName={hosts}\nauthorityKeyIdentifier=keyid\n")
    _openssl(
        *("x509", "-req", "-in", request, "-CA", ca, "-CAkey", folder / "ca.key"),
        *("-CAcreateserial", "-out", leaf, "-days", "2", "-extfile", extensions),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf, folder / "leaf.key")
    return ca, context


def _openssl(*arguments: str | Path) -> None:
    command = ["openssl", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
