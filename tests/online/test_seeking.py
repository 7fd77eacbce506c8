from __future__ import annotations

import numpy as np
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
    ("learned", "like", "looks"),
    [
        ((1024, 0), None, "similarity:bright"),  # what shows the class is held out, or newer
        ((1024, 0), "dark", "similarity:bright"),
        ((1048, 1000), None, "presence:bright"),
    ],
)
def test_a_version_sees_a_class_if_it_has_learned_from_a_region_that_shows_it(learned, like, looks):
    found = seek(*_asked("bright", like), LABELS, np.array(learned), RANKING)
    assert found.strategy is not None
    assert found.strategy.name == looks


@pytest.mark.parametrize("examples", [[], [{"task": 3, "image": 3, "region": None}]])
def test_examples_that_are_not_used_are_said_to_be_so(examples):
    project, version, wish = _asked("bright", None)
    wish.examples = examples
    found = seek(project, version, wish, LABELS, np.array((1048, 1000)), RANKING)
    told = "v1 has learned 'bright': the examples are not used any more"
    assert found.note == (told if examples else None)


@pytest.mark.parametrize(("learned", "looks"), [((1024, 0), "presence:dark"), ((0, 0), None)])
def test_what_a_class_is_said_to_look_like_is_sought_if_that_was_learned(learned, looks):
    found = seek(*_asked("bright", "dark"), LABELS[:1], np.array(learned), RANKING)
    assert (None if found.strategy is None else found.strategy.name) == looks


def _asked(name: str, like: str | None) -> tuple[Project, Version, Wish]:
    project = Project(id=1, tool_id=7, classes=CLASSES, trained_label_id=2)
    wish = Wish(id=3, class_name=name, share=1.0, examples=[], like=like, begun_at=now())
    return project, Version(number=1, weights_key="v1", metrics={}), wish
