from __future__ import annotations

import pytest

from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.offline.point_features import PointFeatures


@pytest.fixture(scope="module")
def source(tiny_dataset, tmp_path_factory):
    cache = tmp_path_factory.mktemp("points")
    return PointFeatures(
        tiny_dataset, (32, 32), cache, spec=SegmenterSpec(3, encoder_weights=None)
    ).split("d_t")
