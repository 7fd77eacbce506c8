"""A database with its tables brought up to date, and transactions on it."""

from __future__ import annotations

import errno
import gzip
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Protocol, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.engine import Connection
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    InternalError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as NoConnectionError
from sqlalchemy.orm import Session, sessionmaker

from ralis_backend.core.unavailable import UnavailableError
from ralis_backend.online.store.tables import Base

_MIGRATIONS = Path(__file__).parent / "migrations"
_Item = TypeVar("_Item")
StoreError = SQLAlchemyError
"""The database refuses: it is locked, full, broken, or not to be reached."""
_BUSY_S = 30
"""For which others are waited for that write to a database."""
_SILENT_S = 15
"""After which a PostgreSQL gives up who writes and says nothing more: the machine may be gone."""
_WRITING = 0x52414C49
"""The number of PostgreSQL's advisory lock that who writes holds; any that is always the same."""
BATCH = 500
"""Rows that are looked up or written at once: others wait for the end of a transaction."""
_SNAPSHOT: dict[str, dict[str, Any]] = {
    "sqlite": {},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}
"""By kind of database, what has every statement of a reading transaction see the same state."""
_NEWEST: dict[str, dict[str, Any]] = {
    "sqlite": {},
    "postgresql": {"isolation_level": "READ COMMITTED"},
}
"""Likewise, what has a writing one see all that those before it wrote."""
_DRIVERS = {"psycopg": "psycopg[binary]"}
"""Modules that are called otherwise by those who install them."""
_LASTING = ("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_CANTOPEN")
"""How SQLite's names of errors begin that stay until somebody moves a file or gives a right."""
_ADVICE = {
    ("SQLITE_CORRUPT", "SQLITE_NOTADB"): "The file is damaged or another program's: put a backup "
    "in its place",
    _LASTING: "Its folder has to exist, and the user who runs this needs the right to write it and "
    "to make files there",
    ("SQLITE_FULL", "SQLITE_IOERR"): "The disk may be full: make room there",
    ("SQLITE_BUSY", "SQLITE_LOCKED"): "Another program is writing: try again later",
}
"""What to do, by how SQLite's names of errors begin."""
_EXPECTED = "Expected a database of this program, or an empty one, that can be reached and written"


class Guard(Protocol):
    """Told of each transaction as it begins; refuses it by raising."""

    def __call__(self, session: Session, *, is_change: bool) -> None:
        """Return, or raise: then nothing is read or changed."""


class Database:
    """Connections and transactions. Rows that leave a transaction are detached."""

    def __init__(self, engine: Engine, guard: Guard | None = None) -> None:
        self.engine = engine
        self._guard = guard
        reading = engine.execution_options(**_SNAPSHOT[engine.dialect.name])
        self._reading = sessionmaker(reading, expire_on_commit=False)
        writing = engine.execution_options(immediate=True, **_NEWEST[engine.dialect.name])
        self._writing = sessionmaker(writing, expire_on_commit=False)

    @classmethod
    def open(cls, url: str) -> Database:
        """Connect to a SQLAlchemy address, and bring the tables up to date.

        Raises:
            UnavailableError: if nothing answers there now.
            ValueError: if it is no SQLite or PostgreSQL database, a newer release made it, or what
                is needed to reach it is not installed.
        """
        engine = _engine(url)
        if engine.dialect.name == "sqlite":
            _configure_sqlite(engine)
        else:
            _configure_postgresql(engine)
        _migrate(engine)
        return cls(engine)

    def guarded(self, guard: Guard) -> Database:
        """The same database through which no transaction goes that `guard` refuses."""
        return Database(self.engine, guard)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that changes nothing, and sees one state of the database."""
        with self._reading() as session:
            self._ask(session, is_change=False)
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that is committed as a whole, or not at all; one at a time."""
        with self._writing.begin() as session:
            self._ask(session, is_change=True)
            yield session

    def _ask(self, session: Session, *, is_change: bool) -> None:
        if self._guard is not None:
            self._guard(session, is_change=is_change)


def now() -> datetime:
    """The current time, aware, UTC."""
    return datetime.now(UTC)


def assign(row: Base, values: Mapping[str, Any]) -> None:
    """Set columns of a row."""
    for name, value in values.items():
        setattr(row, name, value)


def parts(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """The items in lists of `size`, the last one shorter."""
    remaining = iter(items)
    while part := list(islice(remaining, size)):
        yield part


def unpack(payload: bytes) -> Any:
    """The JSON value of a stored payload."""
    return json.loads(gzip.decompress(payload))


def pack(value: Any) -> bytes:
    """A JSON value as `unpack` reads it; equal values give equal bytes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return gzip.compress(text.encode(), compresslevel=1, mtime=0)


def _engine(url: str) -> Engine:
    """What connects to an address; the messages leave it out, since it may hold a password."""
    try:
        if make_url(url).get_backend_name() not in _SNAPSHOT:
            raise ValueError("of other kinds it is not known how writers are kept apart")
        engine = create_engine(url, pool_pre_ping=True, hide_parameters=True)
        if "@" in f"{engine.url.host}{engine.url.database if engine.url.host else ''}":
            raise ValueError("a password with an @ in it was cut there")
        return engine
    except ImportError as error:
        driver = error.name or str(error)
        package = _DRIVERS.get(driver, driver)
        raise ValueError(
            f"RALIS_DATABASE_URL names a database that is reached with {driver}, which is not "
            f"installed; install it beside this program: `pip install '{package}'`, or "
            f"`uv pip install '{package}'` (.tools/bin/uv in a checkout)"
        ) from error
    except (ArgumentError, ValueError, TypeError):
        raise ValueError(
            "RALIS_DATABASE_URL is no address of a PostgreSQL or SQLite database, or has an "
            "option that cannot be used; expected for example "
            "postgresql+psycopg://user:password@host/name (in the password @ : / are written "
            "%40 %3A %2F), or nothing, for the data folder's file"
        ) from None


def _configure_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where `_begin` says
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {1000 * _BUSY_S}")
        _write_ahead(cursor)
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that will write says so at once: upgrading a read lock later can fail.
        is_write = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


def _configure_postgresql(engine: Engine) -> None:
    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # One at a time, as with SQLite: what is decided by what was read stays true until the end.
        if connection.get_execution_options().get("immediate", False):
            silent = "idle_in_transaction_session_timeout"
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_BUSY_S}s'")
            connection.exec_driver_sql(f"SET LOCAL {silent} = '{_SILENT_S}s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITING})")


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Have changes written ahead; where several open a new file SQLite does not wait for that."""
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorname.startswith("SQLITE_BUSY")
            if not is_busy or time.monotonic() >= deadline:
                raise
            time.sleep(0.02)


def _migrate(engine: Engine) -> None:
    """Bring the tables up to date; where they are, nothing waits for whoever writes."""
    revision = _revision_of(engine)
    if revision == _revisions()[0]:
        return
    if revision is not None and revision not in _revisions():
        raise ValueError(
            f"the database {_shown(engine)} was made by a newer release of this program: its "
            f"tables are of revision {revision!r}, this release knows those up to "
            f"{_revisions()[0]!r}. Install that release again, or set RALIS_DATA_DIR and "
            "RALIS_DATABASE_URL to a copy from before the update"
        )
    config = _migrations()
    with _refused_in_words(engine), engine.execution_options(immediate=True).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _revision_of(engine: Engine) -> str | None:
    """Of the tables; None where there are none; `ValueError` where several are named."""
    with _refused_in_words(engine), engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_heads()
    if len(found) > 1:
        raise ValueError(
            f"the database {_shown(engine)} names {len(found)} revisions of its tables in "
            f"alembic_version ({', '.join(sorted(found))}), expected one row: two releases or two "
            "backups are mixed in it. Put a backup of the whole database in its place"
        )
    return found[0] if found else None


@contextmanager
def _refused_in_words(engine: Engine) -> Iterator[None]:
    """A refusal of the database as an error whose message says what was expected."""
    try:
        yield
    except StoreError as error:
        raise refusal(error, engine) from error


def is_refusal(error: Exception) -> bool:
    """Whether a database failed, rather than the program that asks it."""
    return (
        isinstance(error, OperationalError | InternalError | NoConnectionError)
        or type(error) is DatabaseError  # what SQLite says of a damaged page
    )


def refusal(error: StoreError, engine: Engine | None = None) -> ValueError:
    """What a database refuses, in words of one line; `UnavailableError` where that may pass.

    Args:
        error: as SQLAlchemy raised it.
        engine: of the database, where it is known; where not, it has been opened before.
    """
    why = " ".join(str(getattr(error, "orig", None) or error).split())
    reason = str(getattr(getattr(error, "orig", None), "sqlite_errorname", ""))
    is_gone = bool(getattr(error, "connection_invalidated", False))
    may_pass = is_gone or isinstance(error, OperationalError | NoConnectionError)
    may_pass = may_pass and not reason.startswith(_LASTING)
    if reason.startswith("SQLITE_CANTOPEN"):  # whatever the reason, which it does not tell
        may_pass = engine is None or _is_full(Path(engine.url.database or "").parent)
        reason = "SQLITE_FULL" if may_pass and engine is not None else reason
    kind = UnavailableError if may_pass else ValueError
    advice = next((it for names, it in _ADVICE.items() if reason.startswith(names)), _EXPECTED)
    named = f" {_shown(engine)}" if engine is not None else ""
    return kind(
        f"the database{named} cannot be used: {why}. {advice}; see RALIS_DATA_DIR and "
        "RALIS_DATABASE_URL"
    )


def _is_full(folder: Path) -> bool:
    """Whether a file cannot be made in a folder because there are too many, here or opened."""
    try:
        TemporaryFile(dir=folder).close()
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
    return False


def _shown(engine: Engine) -> str:
    """Where a database is, without user, password and options, which may hold one as well."""
    url = engine.url
    place = URL.create(url.drivername, host=url.host, port=url.port, database=url.database)
    return place.render_as_string()


def _migrations() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


@cache
def _revisions() -> tuple[str, ...]:
    """Those that this release knows, newest first."""
    scripts = ScriptDirectory.from_config(_migrations()).walk_revisions()
    return tuple(script.revision for script in scripts)
