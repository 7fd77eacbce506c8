"""A worker's name as the owner of leases, by which it is known whether its process still runs."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path

_PROC = Path("/proc")


def own_name() -> str:
    """This worker's name, at most 64 characters; another one at each call."""
    pid = os.getpid()
    return f"{_machine()}/{pid}/{_started(pid)}/{uuid.uuid4().hex[:8]}"


def is_dead(owner: str | None) -> bool:
    """Whether a lease's owner was a process of this boot and pid namespace that is no more.

    The host's name says nothing: containers may share it, and each counts its processes from 1.
    Where the kernel does not tell (no Linux), nobody is dead, and a lease is waited for.
    """
    machine, pid, started, _ = ((owner or "").split("/") + [""] * 4)[:4]
    if machine != _machine() or "" in (machine, started) or not pid.isdecimal():
        return False
    return _started(int(pid)) != started


def _machine() -> str:
    """This boot of this kernel and this pid namespace; empty where that cannot be told."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = (_PROC / "self/ns/pid").readlink()
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:16]


def _started(pid: int) -> str:
    """When a process began, in ticks since the boot; empty if there is none, or a zombie."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # the name before may hold anything
    return "" if fields[0] in "ZX" else fields[19]
