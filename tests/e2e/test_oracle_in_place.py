"""The demo as a newcomer runs it in place; beside the one in crops, on another processor."""

from __future__ import annotations

import pytest

from tests.e2e.scripted import check_dataset, check_results, label_by_script, processes_of
from tests.plug_in import with_tiny_segmenter

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]


def test_a_script_labels_whole_images_in_place(demo_folder, tmp_path):
    out = demo_folder / "in-place-out"
    tiny = with_tiny_segmenter(tmp_path / "site")
    printed = label_by_script(demo_folder, out, "in-place", 2, tiny)
    check_results(out, printed, 2, 0.0)  # what a network learns is asked of the one in crops
    assert {row["round"] for row in check_dataset(out, 2)} == {"1", "2"}
    assert processes_of(demo_folder) == []
