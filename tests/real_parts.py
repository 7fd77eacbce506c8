"""Parts of the real world that tests need: where one is missing."""

import os

import pytest


def missing(what: str) -> None:
    """A real part is missing: in CI a failure, elsewhere a skip."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)
