"""What is known of each labelling project, kept in a database and a folder of files.

Every change is one short transaction, so that a kill at any moment leaves a whole state. Rows
that leave a method are detached: read them freely, change them through the store.
"""

from __future__ import annotations

from pathlib import Path

from ralis_backend.online.store.annotations import Annotations
from ralis_backend.online.store.answers import Answers
from ralis_backend.online.store.attempts import Attempts
from ralis_backend.online.store.blobs import BlobStore
from ralis_backend.online.store.database import Database, Guard
from ralis_backend.online.store.events import Events
from ralis_backend.online.store.images import Images
from ralis_backend.online.store.labels import Labels
from ralis_backend.online.store.leases import Leases
from ralis_backend.online.store.projects import Projects
from ralis_backend.online.store.queue import Queue
from ralis_backend.online.store.rankings import Rankings
from ralis_backend.online.store.readings import Readings
from ralis_backend.online.store.versions import Versions
from ralis_backend.online.store.wishes import Wishes
from ralis_backend.online.store.workers import Workers


class Store:
    """One database and one folder of files, by what is kept in them."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self.database = database
        self.blobs = blobs
        self.projects = Projects(database)
        self.leases = Leases(database)
        self.workers = Workers(database)
        self.attempts = Attempts(database)
        self.events = Events(database)
        self.images = Images(database)
        self.readings = Readings(database)
        self.annotations = Annotations(database)
        self.labels = Labels(database, blobs)
        self.answers = Answers(database)
        self.queue = Queue(database)
        self.versions = Versions(database)
        self.rankings = Rankings(database, blobs)
        self.wishes = Wishes(database)

    @classmethod
    def open(cls, database_url: str, root: Path) -> Store:
        """Connect, and bring the tables up to date.

        Args:
            database_url: a SQLAlchemy address, for example `sqlite:///ralis.db`.
            root: the folder for masks and weights; made if missing.
        """
        root.mkdir(parents=True, exist_ok=True)
        return cls(Database.open(database_url), BlobStore(root))

    def guarded(self, guard: Guard) -> Store:
        """The same store through which nothing is read or written that `guard` refuses."""
        return Store(self.database.guarded(guard), self.blobs)

    def close(self) -> None:
        """Close all connections."""
        self.database.close()
