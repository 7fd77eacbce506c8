from __future__ import annotations

from ralis_backend.online.store import Store
from tests.online.conftest import MakeWorker, settle
from tests.online.fake_tool import FakeTool


def test_one_unreadable_image_does_not_stop_the_others(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    tool.files[2] = (b"not an image", tool.files[2][1])
    settle(make_worker())
    project = store.projects.all()[0]
    errors = {image.task_id: image.error for image in store.images.of(project.id)}
    assert errors[2]
    assert errors[1] is None
    assert 2 not in {task.data["source_task"] for task in tool.region_tasks.values()}
