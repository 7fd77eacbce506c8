"""The harness finds faults of ours that are planted: what passes it has been looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ralis_backend.core.regions import Region
from ralis_backend.online.store import blobs
from ralis_backend.online.store.annotations import Annotations
from ralis_backend.online.store.tables import Annotation
from ralis_backend.online.tool import Crop, CropPrediction
from tests.faults.play import AnnotatedTool
from tests.faults.run import run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def _harm(*only: str, every: int = 2) -> set[str]:
    summary = run(every=every, seed=0, only=only, limit_s=40)
    return {problem.split(":")[0] for outcome in summary.harmful for problem in outcome.problems}


def test_labels_in_a_second_transaction_without_a_mark_are_found(monkeypatch: pytest.MonkeyPatch):
    put = Annotations.put_task

    def put_as_read(self: Annotations, *arguments: Any, **options: Any) -> list[Annotation]:
        rows = put(self, *arguments, **options)
        with self._database.write() as session:
            for row in rows:
                session.get_one(Annotation, row.id).error = None
        return rows

    monkeypatch.setattr(Annotations, "put_task", put_as_read)
    assert "lost" in _harm("in-place", "events", "kill", every=16)


def test_a_mask_that_is_written_under_its_own_name_is_found(monkeypatch: pytest.MonkeyPatch):
    def write(path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    monkeypatch.setattr(blobs, "write_bytes", write)
    assert _harm("in-place", "events", "half-write")


def test_without_a_planted_fault_the_same_cases_do_no_harm():
    assert not _harm("in-place", "events", "half-write")


def test_what_a_killed_process_leaves_of_the_tool_is_the_tool_as_it_was():
    tool = AnnotatedTool(2)
    tool.add_image(5)
    region, pixels = Region(0, 32, 32, 32), np.zeros((32, 32, 3), np.uint8)
    crop = Crop(1, region, pixels, pixels, 1, 1, 1, "uncertain", "entropy", "v0")
    (task,) = tool.create_crop_tasks(tool.pool, 2, [crop])
    tool.predictions[task.id] = CropPrediction(task.id, region, 1, None, 0.5, 1, "uncertain")
    tool.annotate(task.id)
    tool.begun = {task.id}
    again = AnnotatedTool.taken_up(tool.kept())
    for name in vars(tool).keys() - {"files"}:
        assert getattr(again, name) == getattr(tool, name), name
    assert list(again.files) == [1, 2, 5]
    np.testing.assert_array_equal(again.truth(task.id), tool.truth(task.id))
