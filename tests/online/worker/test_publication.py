from __future__ import annotations

import pytest

from ralis_backend.core.regions import grid
from ralis_backend.online.labels import labels_by_image
from ralis_backend.online.store.tables import CropTask, Image, Project, Ranking, Version
from ralis_backend.online.tool import ToolProject
from ralis_backend.online.worker import publication as publication_module
from ralis_backend.online.worker.publication import Publication
from ralis_backend.online.worker.queue_plan import Place
from tests.online.conftest import make_label


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (70, 90), (31, 200), (20, 20), (33, 32)])
def test_every_place_has_its_own_reasons_without_a_grid_for_each(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(publication_module, "grid", None, raising=False)
    regions = grid(size, (32, 32))
    numbers = [str(index) for index in range(len(regions))]
    ranking = Ranking(reasons=numbers, mined_reasons=numbers)
    publication = Publication(
        pool=ToolProject("1.100", 1, "pool", "<View/>", ()),
        project=Project(id=1, tool_id=1),
        version=Version(number=1),
        images={7: Image(id=7, height=size[0], width=size[1])},
        rankings={7: ranking},
        labels={},
        region_size=(32, 32),
        newest_painted=0,
        learned_label_id=0,
    )
    places = [Place(7, region) for region in regions]
    assert [publication.reason(place) for place in places] == numbers
    assert [publication.mined_reason(place) for place in places] == numbers


GRID = grid((64, 96), (32, 32))


@pytest.mark.parametrize(
    ("labels", "learned", "waiting", "is_new"),
    [
        ([], 20, [], False),
        ([9, 10], 20, [2, 3], False),
        ([11, 12, 13], 10, [2, 3], False),
        ([11, 12, 13, 14], 10, [2, 3], True),  # a round, though no training liked it
        ([11], 11, [2, 3], True),  # a training was asked for
        ([12], 11, [2, 3], False),  # it was trained again, after a skip
        ([11], 10, [3], True),
        ([11], 10, [1, 3], False),  # one of the round before is still in hand
        ([21], 30, [], False),  # not surely among those labels
    ],
)
def test_a_round_is_over_when_it_was_learned_from_or_painted_or_none_of_it_waits(
    labels: list[int], learned: int, waiting: list[int], is_new: bool
):
    painted = [
        make_label(1, region, id=number) for number, region in zip(labels, GRID, strict=False)
    ]
    skipped = [make_label(2, GRID[0], id=11, is_skipped=True)]
    publication = Publication(
        pool=ToolProject("1.100", 1, "pool", "<View/>", ()),
        project=Project(id=1, tool_id=1, round=2, round_label_id=10),
        version=Version(number=1),
        images={},
        rankings={},
        labels=labels_by_image([*painted, *skipped]),
        region_size=(32, 32),
        newest_painted=20,
        learned_label_id=learned,
    )
    tasks = [CropTask(round=number) for number in waiting]
    assert publication.is_new_round(4, tasks) is is_new
