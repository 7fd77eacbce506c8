from __future__ import annotations

from dataclasses import replace

import numpy as np

from ralis_backend.core.regions import Region
from ralis_backend.online.labels import NewLabel
from ralis_backend.online.store import Store
from ralis_backend.online.store.tables import Image, Project
from ralis_backend.online.worker.stretch import Basis
from tests.online.store.conftest import annotation, label


def test_without_ticks_a_basis_is_what_it_was_before_ticks_were_part_of_it():
    basis = Basis(7, (3, 15), (4,), (), (1,), None)
    assert basis.digest == "c865492177f27493"
    assert replace(basis, disputed_ids=(5,)).digest != basis.digest


def test_a_tick_that_goes_changes_what_is_learned_from(
    store: Store,
    project: Project,
    image: Image,
):
    region = Region(0, 0, 2, 2)
    whole = NewLabel(region, np.zeros((2, 2), np.uint8))
    label(store, project, image, annotation(1, 1), whole)
    ticked = NewLabel(region, np.ones((2, 2), np.uint8), is_disputed=True)
    row = label(store, project, image, annotation(2, 2), ticked)
    before, known = Basis.of(store, project), [it.id for it in store.labels.of(project.id)]
    assert Basis.of(store, project) == before
    store.labels.put(row, [replace(ticked, is_disputed=False)], {})
    assert [it.id for it in store.labels.of(project.id)] != known
    assert Basis.of(store, project).digest != before.digest
