"""Prometheus metrics: how requests fare, and where each project stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from ralis_backend.online.learner import Learner

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0, 10.0, 100.0)


class Metrics:
    """One per app, with a registry of its own.

    Args:
        learner: asked for the projects' state at each scrape.
        shared_dir: where several processes keep their counts, so that each can report all;
            None for one process.
    """

    def __init__(self, learner: Learner, shared_dir: Path | None) -> None:
        self._registry = CollectorRegistry()
        self._shared_dir = shared_dir
        self._projects = _Projects(learner)
        self._seconds = Histogram(
            "ralis_request_seconds",
            "Time to answer a request",
            ("endpoint", "outcome"),
            buckets=_BUCKETS,
            registry=self._registry,
        )

    def observe(self, endpoint: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        outcome = "ok" if status < 400 else "refused" if status < 500 else "failed"
        self._seconds.labels(endpoint, outcome).observe(seconds)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        requests = self._registry
        if self._shared_dir is not None:
            requests = CollectorRegistry()
            MultiProcessCollector(requests, path=str(self._shared_dir))  # type: ignore[no-untyped-call]
        projects = CollectorRegistry()
        projects.register(self._projects)
        return generate_latest(requests) + generate_latest(projects)


class _Projects:
    """Gauges read from the store when they are asked for."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    def describe(self) -> list[GaugeMetricFamily]:
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        version = GaugeMetricFamily("ralis_model_version", "Version in use", labels=["project"])
        regions = GaugeMetricFamily(
            "ralis_labelled_regions", "Regions labelled so far", labels=["project"]
        )
        state = GaugeMetricFamily(
            "ralis_state", "1 for what the worker is doing", labels=["project", "state"]
        )
        for uid, status in self._learner.status(None).items():
            version.add_metric([uid], float(status.get("version", "v0").lstrip("v") or 0))
            regions.add_metric([uid], float(status.get("labelled_regions", 0)))
            state.add_metric([uid, str(status.get("state", "idle"))], 1.0)
        yield from (version, regions, state)
