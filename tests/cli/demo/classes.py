"""The classes of the toy dataset, whose names need care in XML."""

from ralis_backend.offline.datasets import DatasetClass

CLASSES = [DatasetClass("road & <rail>", (128, 64, 128)), DatasetClass('a "b"', (1, 2, 3))]
