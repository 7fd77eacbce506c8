"""What is known of each labelling project: a database, and a folder of files."""

from ralis_backend.online.store.annotations import (
    annotation_from_json,
    annotation_to_json,
    version_number,
)
from ralis_backend.online.store.database import StoreError, now, parts, unpack
from ralis_backend.online.store.store import Store

__all__ = [
    "Store",
    "StoreError",
    "annotation_from_json",
    "annotation_to_json",
    "now",
    "parts",
    "unpack",
    "version_number",
]
