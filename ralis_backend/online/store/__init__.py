"""What is known of each labelling project: a database, and a folder of files."""

from ralis_backend.online.store.annotations import (
    annotation_from_json,
    annotation_to_json,
    version_number,
)
from ralis_backend.online.store.database import (
    StoreError,
    is_refusal,
    now,
    parts,
    refusal,
    unpack,
)
from ralis_backend.online.store.store import Store

__all__ = [
    "Store",
    "StoreError",
    "annotation_from_json",
    "annotation_to_json",
    "is_refusal",
    "now",
    "parts",
    "refusal",
    "unpack",
    "version_number",
]
