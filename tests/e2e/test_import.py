"""`ralis import` into a real Label Studio."""

from __future__ import annotations

import numpy as np
import pytest

from ralis_backend.cli.uploads import import_into
from ralis_backend.core.images import decode_image, encode_png, mask_to_png
from ralis_backend.offline.datasets import plain_folder
from ralis_backend.online.file_names import uploaded_name
from tests.e2e.pool import CLASSES

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_pictures_are_imported_once_whatever_they_are_called(client, tool, pool, tmp_path):
    folder = tmp_path / "pictures"
    (folder / "masks").mkdir(parents=True)
    for shade, name in enumerate(("写真12", "हिन्दी 1", "\U0001f33e field", "x" * 150)):
        (folder / f"{name}.png").write_bytes(encode_png(np.full((40, 40, 3), shade, np.uint8)))
        mask = mask_to_png(np.full((40, 40), shade % 2, np.uint8))
        (folder / "masks" / f"{name}.png").write_bytes(mask)
    dataset = plain_folder(folder, CLASSES)
    assert import_into(client, tool, pool, dataset, print) == (4, 4)
    assert import_into(client, tool, pool, dataset, print) == (0, 0)
    for task in tool.tasks(pool.id):
        (result,) = client.task(task.id)["annotations"][0]["result"]
        shade = decode_image(tool.image(task))[0, 0, 0]
        assert result["value"]["brushlabels"] == [CLASSES[shade % 2]]
    shown = {uploaded_name(task.image) for task in tool.tasks(pool.id)}
    assert {name for name in shown if len(name) < 60} == {"field.png", "写真12.png", "हनद_1.png"}
    assert {name[:48] for name in shown if len(name) > 60} == {f"{'x' * 47}-"}
    assert client.project(pool.id)["task_number"] == 4
