from __future__ import annotations

from dataclasses import replace

import pytest

from ralis_backend.core import weights
from ralis_backend.core.policy import AgnosticPolicy, AgnosticSpec, MisicalPolicy, MisicalSpec
from ralis_backend.core.policy.ranges import check_ranges


@pytest.mark.parametrize("values", [[], (), [0.5, 1, -3.0]])
def test_numbers_of_every_input_or_none_are_ranges(values):
    check_ranges(values, values, 3)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0, 3.0], "'low' is .*, expected 3 numbers or none"),
        ([1.0, 2.0, 3.0], ["a", "b", "c"], "'high' is .*, expected 3 numbers or none"),
        ([1.0, 2.0, True], [1.0, 2.0, 3.0], "'low'"),
        ([1.0, 2.0, float("nan")], [1.0, 2.0, 3.0], "'low'"),
        ([1.0, 2.0, 10**400], [1.0, 2.0, 3.0], "'low'"),
        ("abc", "abc", "'low' is abc"),
        (None, None, "'low' is None"),
        ([], [1.0, 2.0, 3.0], "0 values 'low' and 3 'high'"),
    ],
)
def test_anything_else_is_refused(low, high, message):
    with pytest.raises(ValueError, match=message):
        check_ranges(low, high, 3)


@pytest.mark.parametrize(
    ("kind", "spec"), [(AgnosticPolicy, AgnosticSpec()), (MisicalPolicy, MisicalSpec())]
)
def test_a_policy_with_ranges_of_other_inputs_is_refused(kind, spec, tmp_path):
    path = tmp_path / "policy.safetensors"
    policy = kind.untrained(spec, 0, "policy")
    policy.spec = replace(spec, low=(0.0,), high=(1.0,))
    policy.save(path)
    with pytest.raises(weights.WeightsError, match=r"'low' is .*, expected \d+ numbers or none"):
        kind.load(path)
