"""Tests, and where the repository lies that they are of."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
