"""Features of a pool on disk while it is ranked: written image by image, read as one table."""

from __future__ import annotations

import logging
import secrets
import shutil
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from ralis_backend.core.features import RegionFeatures

logger = logging.getLogger(__name__)


class FeatureSpool:
    """A file for each feature; what is read back is mapped, not held in memory.

    Args:
        folder: of the project; what other runs left there is removed. This run's files lie in a
            folder of their own below, so that a run which does not know yet that it is over finds
            its files gone, and never writes into these. Where it cannot be made, a
            temporary one takes its place.
    """

    def __init__(self, folder: Path) -> None:
        self._runs = folder
        self._folder = folder / secrets.token_hex(8)
        self._files: dict[str, BinaryIO] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._num_regions = 0
        self._open = ExitStack()

    def __enter__(self) -> Self:
        shutil.rmtree(self._runs, ignore_errors=True)
        try:
            self._folder.mkdir(parents=True)
        except OSError as error:  # what a killed run left cannot be removed, or is no folder
            elsewhere = Path(tempfile.mkdtemp(prefix="ralis-spool-"))
            logger.warning("%s cannot be used (%s), %s is instead", self._folder, error, elsewhere)
            self._folder = elsewhere
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):  # another run is there
            self._runs.rmdir()

    def append(self, features: RegionFeatures) -> None:
        """Add the regions of one image; all images have the same features.

        Raises:
            OSError: if the disk refuses, for example because it is full.
        """
        for name in features:
            values = np.ascontiguousarray(features[name], np.float32)
            if name not in self._files:
                file = (self._folder / name).open("wb")
                self._files[name] = self._open.enter_context(file)
                self._shapes[name] = values.shape[1:]
            self._files[name].write(values.data)
        self._num_regions += len(features)

    def features(self) -> RegionFeatures:
        """Everything that was added, in that order."""
        return RegionFeatures(self._num_regions, {name: self._mapped(name) for name in self._files})

    def _mapped(self, name: str) -> np.ndarray:
        self._files[name].flush()
        shape = (self._num_regions, *self._shapes[name])
        if 0 in shape:  # an empty file cannot be mapped
            return np.zeros(shape, np.float32)
        return np.memmap(self._folder / name, np.float32, "r", shape=shape)
