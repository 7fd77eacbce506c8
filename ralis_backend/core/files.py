"""Files and folders that are there whole or not at all, whatever interrupts their writing.

Each is written under another name in the same folder, synced to the disk, and then renamed; at last
the folder is synced, so that the new name is on the disk, too.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

READABLE = 0o666
"""Mode of files that others may read as well; less what the umask takes."""
OWNER_ONLY = 0o600
PARTIAL = ".writing-"
"""How the names of files and folders begin that are being written."""


def write_json(path: Path, content: Mapping[str, Any], *, mode: int = READABLE) -> None:
    """Write a JSON file, whole or not at all; its folder is made where it is missing.

    Raises:
        ValueError: if a number is not finite.
    """
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_bytes(path, text.encode(), mode=mode)


def write_bytes(
    path: Path, content: bytes, *, mode: int = READABLE, survives_power_loss: bool = True
) -> None:
    """Write a file, whole or not at all; its folder is made where it is missing."""
    with writing(path, mode=mode, survives_power_loss=survives_power_loss) as partial:
        partial.write_bytes(content)


@contextmanager
def writing(
    path: Path, *, mode: int = READABLE, survives_power_loss: bool = True
) -> Iterator[Path]:
    """A path to write to, an empty file; it becomes `path` when the block ends well.

    For writers that want a path. When the block or the disk fails, what was written is removed and
    `path` stays what it was.

    Args:
        path: replaced if it exists; its folder is made where it is missing.
        mode: permissions of the file, less what the umask takes.
        survives_power_loss: wait until the content is on the disk. Without, a file may be empty
            after a power loss: enough for a cache.

    Raises:
        OSError: if the disk refuses, for example because it is full.
    """
    partial = _beside(path)
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    try:
        yield partial
        if survives_power_loss:
            _sync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if survives_power_loss:
        _sync_folder(path.parent)


@contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """An empty folder to write to; it becomes `path` when the block ends well, or vanishes.

    A folder that is there already is kept, and at the end gets what was written: somebody may be in
    it, it may be another disk's, or lie in a folder that nobody may write to.

    Args:
        path: must not exist, or be an empty folder, or a link to either.

    Raises:
        OSError: if `path` is a file or holds anything, now or at the end; it stays what it was.
    """
    path = _real(path)
    is_there = path.exists()
    if is_there:
        _must_be_empty(path)
    partial = path / _partial_name() if is_there else _beside(path)
    partial.mkdir()
    try:
        yield partial
        for each in sorted(partial.rglob("*"), reverse=True):
            _sync_folder(each) if each.is_dir() else _sync(each)
        _sync_folder(partial)
        if is_there:
            _empty_into(partial, path)
        else:
            partial.replace(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _sync_folder(path if is_there else path.parent)


def check_folder(path: Path) -> None:
    """Return if `writing_folder` can begin; nothing of it is left.

    Raises:
        OSError: if it cannot, naming `path`.
    """
    try:
        real = _real(path)
        if real.exists():
            _must_be_empty(real)
        nearest = next(each for each in (real, *real.parents) if each.exists())
        probe = nearest / _partial_name()
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _real(path: Path) -> Path:
    """Where links lead."""
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return real


def _must_be_empty(path: Path, besides: str | None = None) -> None:
    if any(name != besides for name in os.listdir(path)):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))


def _empty_into(partial: Path, path: Path) -> None:
    """Move what a folder in `path` holds to `path` itself: all of it or nothing."""
    _must_be_empty(path, besides=partial.name)
    moved: list[Path] = []
    try:
        for each in sorted(partial.iterdir()):
            each.rename(path / each.name)
            moved.append(path / each.name)
        partial.rmdir()
    except BaseException:
        for each in moved:
            each.rename(partial / each.name)
        raise


def make_private_folder(path: Path) -> None:
    """A folder that its owner alone can enter; one that exists is closed to everyone else.

    What lies in it may keep its mode: nobody gets there. A group that was let in on purpose stays.
    """
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    allowed = mode & ~0o007 if mode & 0o020 else mode & ~0o077
    if allowed != mode:
        with suppress(PermissionError):  # somebody else's, who decides
            path.chmod(allowed)


def _beside(path: Path) -> Path:
    """A name in the folder of `path` that nothing has; some writers go by the suffix."""
    path = path.absolute()  # "." has no name
    make_folder(path.parent)
    return path.with_name(_partial_name() + path.suffix)


def _partial_name() -> str:
    return PARTIAL + secrets.token_hex(8)


def make_folder(path: Path) -> None:
    """Make a folder with those above it, so that a power loss does not take them; one is fine."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        _sync_folder(folder.parent)


def _sync_folder(path: Path) -> None:
    with suppress(OSError):  # some network file systems refuse; what is in it is there
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
