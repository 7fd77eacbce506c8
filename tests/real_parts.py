"""Parts of the real world that tests need: where one is missing."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("RALIS_SHARED", "../shared")).resolve()
"""Images, weights and cases; absolute, since tests change their working directory."""


def missing(what: str) -> None:
    """A real part is missing: in CI a failure, elsewhere a skip."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)
