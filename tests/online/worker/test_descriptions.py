from __future__ import annotations

from ralis_backend.online.store import Store
from ralis_backend.online.tool import ToolError
from tests.online.conftest import MakeWorker, label_round, settle
from tests.online.fake_tool import FakeTool


def test_both_projects_say_how_it_stands_and_where_to_label(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    assert tool.descriptions[1] == (
        'Label in the project "regions" (number 2). Model v0; 0 regions labelled, 0.00 % of the '
        "pool. Label on: nothing has been trained yet."
    )
    label_round(store, tool)
    settle(worker)
    assert "Model v1; 4 regions labelled, 11.11 % of the pool." in tool.descriptions[1]
    assert tool.descriptions[2].startswith('Regions of the project "pool" (number 1). Model v1;')


def test_in_place_there_is_one_project_to_describe(tool: FakeTool, make_worker: MakeWorker):
    settle(make_worker("in-place"))
    assert list(tool.descriptions) == [1]
    assert tool.descriptions[1].startswith("Model v0; 0 regions labelled")


def test_a_description_that_cannot_be_written_stops_nothing(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    tool.fail_in["describe"] = ToolError("only owners may change the project")
    settle(worker)
    (project,) = store.projects.all()
    assert (project.last_error, project.published_version) == (None, 0)
    assert len(tool.queue()) == 8


def test_what_is_the_same_is_not_written_with_each_label(
    store: Store, tool: FakeTool, make_worker: MakeWorker
):
    worker = make_worker()
    settle(worker)
    before = tool.calls.count("describe")
    for _ in range(2):
        label_round(store, tool, 1)
        worker.advance_all()
    assert tool.calls.count("describe") == before  # told with the next look, a minute later
