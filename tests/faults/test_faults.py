"""One fault at a time in every step of the worker: nothing is lost, doubled, or stopped by it."""

from __future__ import annotations

import os

import pytest

from tests.faults.injection import KINDS_OF
from tests.faults.known import is_known
from tests.faults.run import run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

STEPS = {"loop", "sync", "events", "train", "rank", "publish", "export", "migrate", "tidy"}


def test_a_project_survives_faults_of_each_kind_and_in_each_step():
    """`make faults` tries all of them; here are some, and others with RALIS_FAULTS_SEED."""
    seed = int(os.environ.get("RALIS_FAULTS_SEED", "5"))
    num_cores = len(os.sched_getaffinity(0))
    print(f"RALIS_FAULTS_SEED={seed}")  # noqa: T201
    summary = run(every=2700, seed=seed, is_brief=True, processes=num_cores, limit_s=400)
    assert set(summary.table()) == STEPS
    tried = {outcome.case.fault.kind for outcome in summary.outcomes}
    assert tried == set().union(*KINDS_OF.values())
    harm = [outcome for outcome in summary.harmful if not is_known(outcome)]
    assert not harm, f"RALIS_FAULTS_SEED={seed} does it again:\n" + "\n".join(
        f"{outcome.case}: {'; '.join(outcome.problems)}" for outcome in harm
    )
