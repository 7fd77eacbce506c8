"""Each test of this folder runs on CUDA where there is it, and everywhere on a stand-in for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import segmentation_models_pytorch  # noqa: F401  (here, since the stand-in would watch it load)

from tests.gpu.stand_in import StandInForCuda


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.gpu), "stand-in"])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The device's name; on the stand-in it finds tensors on different devices, and no more."""
    if request.param == "cuda":
        yield "cuda"
        return
    with StandInForCuda():
        yield "cuda"
