"""A PostgreSQL server of one's own, for tests."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg


class Server:
    """Runs at an address of this machine; everybody on it may connect."""

    def __init__(self, port: int) -> None:
        self._port = port

    def new_database(self) -> str:
        """The SQLAlchemy address of an empty database."""
        name = f"ralis_{uuid4().hex}"
        address = f"host=127.0.0.1 port={self._port} user=postgres dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://postgres@127.0.0.1:{self._port}/{name}"


def programs() -> Path | None:
    """The folder of a PostgreSQL's programs; None where none is installed."""
    found = shutil.which("pg_ctl")
    if found is not None:
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@contextmanager
def server(folder_of_programs: Path) -> Iterator[Server]:
    """A server with an empty folder, until the end; of the user `postgres` where we are root."""
    port = _free_port()
    folder = Path(tempfile.mkdtemp(prefix="ralis-postgresql-"))
    try:
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(folder, account.pw_uid, account.pw_gid)
        data = str(folder / "data")
        _run(folder_of_programs / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-N")
        options = f"-k {folder} -p {port} -c listen_addresses=127.0.0.1 -c fsync=off"
        control = folder_of_programs / "pg_ctl"
        _run(control, "-D", data, "-w", "-o", options, "-l", str(folder / "log"), "start")
        try:
            yield Server(port)
        finally:
            _run(control, "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _run(program: Path, *arguments: str) -> None:
    """A PostgreSQL refuses to run as root."""
    user = "postgres" if os.geteuid() == 0 else None
    command = [str(program), *arguments]
    subprocess.run(command, check=True, user=user, cwd="/", stdout=subprocess.DEVNULL, timeout=60)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
