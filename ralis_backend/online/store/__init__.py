"""What is known of each labelling project: a database, and a folder of files."""

from ralis_backend.online.store.store import (
    NewLabel,
    ProjectStore,
    RegionLabel,
    annotation_from_json,
    annotation_to_json,
    now,
    unpack,
    version_number,
)

__all__ = [
    "NewLabel",
    "ProjectStore",
    "RegionLabel",
    "annotation_from_json",
    "annotation_to_json",
    "now",
    "unpack",
    "version_number",
]
