"""`ralis import` into a real Label Studio."""

from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.cli.uploads import import_into
from ralis_backend.core.images import encode_png
from ralis_backend.offline.datasets import plain_folder
from ralis_backend.online.file_names import uploaded_name

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_pictures_are_imported_once_whatever_they_are_called(client, tool, pool, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("写真12", "हिन्दी 1", "\U0001f33e field", "x" * 150):
        (folder / f"{name}.png").write_bytes(encode_png(np.zeros((40, 40, 3), np.uint8)))
    assert import_into(client, tool, pool, plain_folder(folder), print) == (4, 0)
    assert import_into(client, tool, pool, plain_folder(folder), print) == (0, 0)
    shown = {uploaded_name(task.image) for task in tool.tasks(pool.id)}
    assert {name for name in shown if len(name) < 60} == {"field.png", "写真12.png", "हनद_1.png"}
    assert {name[:48] for name in shown if len(name) > 60} == {f"{'x' * 47}-"}
    assert client.project(pool.id)["task_number"] == 4
