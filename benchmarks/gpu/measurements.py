"""Names of measurements -> measurements; one more is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.gpu.game import game
from benchmarks.gpu.query_step import query_step
from benchmarks.gpu.ranking import CAMVID, CITYSCAPES, ranking
from benchmarks.gpu.timing import Setting
from benchmarks.gpu.training import training

MEASUREMENTS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "ranking-480x360": partial(ranking, CAMVID),
    "ranking-2048x1024": partial(ranking, CITYSCAPES),
    "training": training,
    "query-step": query_step,
    "game": game,
}
