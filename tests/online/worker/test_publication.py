from __future__ import annotations

import pytest

from ralis_backend.core.regions import grid
from ralis_backend.online.store.tables import Image, Project, Ranking, Version
from ralis_backend.online.tool import ToolProject
from ralis_backend.online.worker import publication as publication_module
from ralis_backend.online.worker.publication import Publication
from ralis_backend.online.worker.queue_plan import Place


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
    )
    places = [Place(7, region) for region in regions]
    assert [publication.reason(place) for place in places] == numbers
    assert [publication.mined_reason(place) for place in places] == numbers
