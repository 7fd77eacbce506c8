from __future__ import annotations

import pytest

from ralis_backend.core.regions import Region
from ralis_backend.online.seeking import seek
from ralis_backend.online.store import now
from ralis_backend.online.store.tables import Project, Version, Wish
from tests.online.conftest import RANKING, make_label

CLASSES = [{"name": name, "is_active": True} for name in ("dark", "bright")]
LABELS = [
    make_label(1, Region(0, 0, 32, 32), id=1, pixels=(1024,)),
    make_label(1, Region(0, 32, 32, 32), id=2, pixels=(24, 1000)),
]


@pytest.mark.parametrize(
    ("metrics", "looks"),
    [
        ({"newest_label_id": 1}, "similarity:bright"),  # a later version saw the class first
        ({"newest_label_id": 2}, "presence:bright"),
        ({}, "presence:bright"),  # made before versions said what they have learned from
    ],
)
def test_a_version_sees_a_class_if_it_has_learned_from_a_region_that_shows_it(metrics, looks):
    project = Project(id=1, tool_id=7, classes=CLASSES, trained_label_id=2)
    version = Version(number=1, weights_key="v1", metrics=metrics)
    wish = Wish(id=3, class_name="bright", share=1.0, examples=[], begun_at=now())
    found = seek(project, version, wish, LABELS, RANKING)
    assert found.strategy is not None
    assert found.strategy.name == looks
