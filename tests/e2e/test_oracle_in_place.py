"""The demo as a newcomer runs it in place; beside the one in crops, on another processor."""

from __future__ import annotations

import shutil

import pytest

from ralis_backend.cli.demo.workplace import Workplace
from tests.e2e.conftest import PASSWORD, TOKEN, USERNAME
from tests.e2e.scripted import check_dataset, check_results, label_by_script, processes_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture
def demo_of_before(demo_folder, label_studio_data):
    """A demo folder whose Label Studio was started before: its first start takes a minute."""
    shutil.copytree(label_studio_data, demo_folder / "label-studio")
    Workplace(demo_folder, USERNAME, PASSWORD, TOKEN).save()
    return demo_folder


def test_a_script_labels_whole_images_in_place(demo_of_before):
    out = demo_of_before / "in-place-out"
    printed = label_by_script(demo_of_before, out, "in-place", 2)
    check_results(out, printed, 2)
    check_dataset(out, 2)
    assert processes_of(demo_of_before) == []
