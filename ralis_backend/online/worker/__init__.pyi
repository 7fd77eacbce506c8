from .config import WorkerConfig
from .loop import Worker

__all__ = ["Worker", "WorkerConfig"]
