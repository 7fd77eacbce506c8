from __future__ import annotations

import pytest

from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Project
from ralis_backend.online.tool import ClassLabel


def test_removed_labels_keep_their_index_and_new_ones_come_after(store: Store, project: Project):
    changed = (ClassLabel("car", "#00FF00"), ClassLabel("bus", "#FF0000"))
    again = store.projects.register("1.100", 1, "<View>2</View>", changed, "")
    assert again.class_names == ("road", "car", "bus")
    assert [entry["is_active"] for entry in again.classes] == [False, True, True]
    assert again.classes[1]["color"] == "#00FF00"
    assert again.title == "streets"
    assert again.removed_classes == (0,)


def test_an_unknown_project_is_named_with_what_to_do(store: Store, project: Project):
    with pytest.raises(
        ValueError, match=r"9\.9 is not known here \(known: 1\.100\).*ralis connect"
    ):
        store.projects.get("9.9")
