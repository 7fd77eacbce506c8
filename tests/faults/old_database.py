"""A database as the first release made it, with the rows of today's."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from ralis_backend.online.store import database

FIRST = "0001"


def make_old(folder: Path) -> None:
    """Replace `ralis.db` of a folder by one with the first release's tables and the same rows."""
    today, old = folder / "ralis.db", folder / "old.db"
    _make_tables(old)
    with sqlite3.connect(old) as connection:
        connection.execute("ATTACH ? AS today", (str(today),))
        for table in _names(connection, "main"):
            _copy(connection, table)
    connection.close()
    for path in folder.glob("ralis.db*"):
        path.unlink()
    old.rename(today)


def _make_tables(path: Path) -> None:
    migrations = Path(database.__file__).parent / "migrations"
    config = Config()
    config.set_main_option("script_location", str(migrations))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, FIRST)
    engine.dispose()


def _names(connection: sqlite3.Connection, schema: str) -> list[str]:
    query = f"SELECT name FROM {schema}.sqlite_master WHERE type = 'table'"
    names = [name for (name,) in connection.execute(query)]
    return [name for name in names if name != "alembic_version" and not name.startswith("sqlite_")]


def _columns(connection: sqlite3.Connection, schema: str, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA {schema}.table_info({table})")]


_GONE = {("annotations", "seen_at"): "updated_at"}
"""Columns that were filled once and are no more, with what they held about."""


def _copy(connection: sqlite3.Connection, table: str) -> None:
    today = _columns(connection, "today", table)
    values = {
        name: name if name in today else _GONE.get((table, name))
        for name in _columns(connection, "main", table)
    }
    names = [f'"{name}"' for name, value in values.items() if value]
    sources = [f'"{value}"' for value in values.values() if value]
    connection.execute(
        f"INSERT INTO main.{table} ({', '.join(names)}) "
        f"SELECT {', '.join(sources)} FROM today.{table}"
    )
