"""The harness finds faults of ours that are planted: what passes it has been looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ralis_backend.online.store import blobs
from ralis_backend.online.store.annotations import Annotations
from ralis_backend.online.store.tables import Annotation
from tests.faults.run import run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def _harm(*only: str) -> set[str]:
    summary = run(every=2, seed=0, only=only, limit_s=40)
    return {problem.split(":")[0] for outcome in summary.harmful for problem in outcome.problems}


def test_labels_in_a_second_transaction_without_a_mark_are_found(monkeypatch: pytest.MonkeyPatch):
    put = Annotations.put_task

    def put_as_read(self: Annotations, *arguments: Any) -> list[Annotation]:
        rows = put(self, *arguments)
        with self._database.write() as session:
            for row in rows:
                session.get_one(Annotation, row.id).error = None
        return rows

    monkeypatch.setattr(Annotations, "put_task", put_as_read)
    assert "lost" in _harm("in-place", "events", "kill")


def test_a_mask_that_is_written_under_its_own_name_is_found(monkeypatch: pytest.MonkeyPatch):
    def write(path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    monkeypatch.setattr(blobs, "write_bytes", write)
    assert _harm("in-place", "events", "half-write")


def test_without_a_planted_fault_the_same_cases_do_no_harm():
    assert not _harm("in-place", "events", "half-write")
