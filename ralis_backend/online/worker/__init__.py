"""The worker: sync -> train -> rank -> publish, for each project, until nothing is due.

Level-triggered: each pass compares what is with what should be, so a kill at any moment costs
at most the step in progress, and no label.
"""

from ralis_backend.online.worker.config import WorkerConfig
from ralis_backend.online.worker.loop import Worker

__all__ = ["Worker", "WorkerConfig"]
