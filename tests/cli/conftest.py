import os

import pytest


@pytest.fixture
def environment(tmp_path):
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RALIS_", "LABEL_STUDIO_"))
    }
    return {
        **kept,
        "RALIS_DATA_DIR": str(tmp_path / "state"),
        "RALIS_ENCODER_WEIGHTS": "none",
        "OMP_NUM_THREADS": "1",
    }
