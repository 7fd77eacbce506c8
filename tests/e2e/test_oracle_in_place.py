"""The demo as a newcomer runs it in place; beside the one in crops, on another processor."""

from __future__ import annotations

import pytest

from tests.e2e.scripted import check_dataset, check_results, label_by_script, processes_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_a_script_labels_whole_images_in_place(demo_folder):
    out = demo_folder / "in-place-out"
    printed = label_by_script(demo_folder, out, "in-place")
    check_results(out, printed)
    check_dataset(out)
    assert processes_of(demo_folder) == []
