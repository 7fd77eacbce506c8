import numpy as np
from PIL import Image

from ralis_backend.offline.datasets import Sample
from ralis_backend.offline.scaled import scaled


def test_a_side_of_a_few_pixels_keeps_one(tmp_path):
    Image.fromarray(np.zeros((4, 300, 3), np.uint8)).save(tmp_path / "flat.png")
    Image.fromarray(np.ones((4, 300), np.uint8)).save(tmp_path / "mask.png")
    (small,) = scaled([Sample("flat", tmp_path / "flat.png", tmp_path / "mask.png")], 0.1)
    assert small.image().shape == (1, 30, 3)
    assert small.mask().shape == (1, 30)
