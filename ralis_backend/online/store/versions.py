"""The versions of a project's segmenter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, or_, select

from ralis_backend.online.further import ALL_LABELS, AWAITED, NOT_IN_USE, TRIED_WITH
from ralis_backend.online.store.attempts import is_training_given_up
from ralis_backend.online.store.database import Database, assign
from ralis_backend.online.store.tables import Attempt, Project, Version


class Versions:
    """Trained segmenters by project and number."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self, project_id: int) -> list[Version]:
        """All versions, oldest first."""
        with self._database.read() as session:
            return list(
                session.scalars(
                    select(Version).where(Version.project_id == project_id).order_by(Version.number)
                )
            )

    def find(self, project_id: int, number: int) -> Version | None:
        """One version by its number."""
        with self._database.read() as session:
            return session.scalars(
                select(Version).where(Version.project_id == project_id, Version.number == number)
            ).first()

    def unjudged(self, project: Project) -> Version | None:
        """What was trained last from the version in use, if nobody could judge it; None if not.

        The version in use itself, if it was accepted without and nothing was trained from it since.
        Nothing where training on the labels there are was given up. What was trained to the end of
        its labels, and could not be compared, waits for nobody.
        """
        in_use = project.current_version
        query = select(Version).where(
            Version.project_id == project.id,
            or_(Version.parent == in_use, Version.number == in_use),
        )
        with self._database.read() as session:
            rows = session.scalars(query.order_by(Version.number.desc()))
            newest = next((row for row in rows if "validation_regions" in row.metrics), None)
            if newest is None:
                return None
            is_used = newest.is_accepted and newest.number == in_use
            if (AWAITED if is_used else NOT_IN_USE) not in newest.metrics:
                return None
            if newest.is_accepted and not is_used:  # somebody went back from it
                return None
            return None if is_training_given_up(session, project) else newest

    def next_number(self, project_id: int) -> int:
        """The number of the version that is trained next."""
        with self._database.read() as session:
            newest = select(func.max(Version.number)).where(Version.project_id == project_id)
            return 1 + (session.scalar(newest) or 0)

    def serving(self, project: Project) -> Version | None:
        """The version that answers: the one in use, or the one before until that is ranked."""
        is_in_use = Version.number == project.current_version
        query = (
            select(Version)
            .where(Version.project_id == project.id, or_(Version.ranked_at.is_not(None), is_in_use))
            .order_by(Version.ranked_at.is_(None), ~is_in_use, Version.number.desc())
        )
        with self._database.read() as session:
            return session.scalars(query.limit(1)).first()

    def use(self, project_id: int, number: int) -> None:
        """Make a version the one in use, to be published.

        Raises:
            ValueError: if there is no such version, its weights are no longer kept, or it has
                learned from what is held out.
        """
        with self._database.write() as session:
            rows = session.scalars(select(Version).where(Version.project_id == project_id))
            versions = {row.number: row for row in rows}
            kept = ", ".join(row.name for row in versions.values() if not row.is_dropped) or "none"
            if number not in versions:
                raise ValueError(f"there is no version v{number}; there are: {kept}")
            if versions[number].is_dropped:
                raise ValueError(
                    f"the weights of v{number} are no longer kept (RALIS_KEEP_VERSIONS); "
                    f"there are: {kept}"
                )
            if ALL_LABELS in versions[number].metrics:
                raise ValueError(
                    f"v{number} has learned from what is held out, so that nothing would be left "
                    f"to judge versions by; export it with --version v{number}"
                )
            project = session.get_one(Project, project_id)
            assign(project, {"current_version": number, "is_publishing_requested": True})
            row = versions[number]
            row.metrics = {name: it for name, it in row.metrics.items() if name != NOT_IN_USE}

    def use_instead(self, project_id: int, damaged: int, number: int, **values: Any) -> bool:
        """Make a version the one in use where a damaged one still is; whether it was.

        values: columns of the project that are set then.
        """
        with self._database.write() as session:
            project = session.get_one(Project, project_id)
            is_in_use = project.current_version == damaged
            if is_in_use:
                asked = {"current_version": number, "is_publishing_requested": True}
                assign(project, {**values, **asked})
            return is_in_use

    def weights_keys(self, project_id: int) -> set[str]:
        """Where the weights lie that are kept."""
        return {
            version.weights_key
            for version in self.all(project_id)
            if version.weights_key is not None and not version.is_dropped
        }

    def drop_weights(self, project_id: int, kept: int) -> list[Version]:
        """Mark the versions whose weights nobody needs as dropped; which are so now.

        Kept are the `kept` newest, and whatever their age the one in use, the one published, the
        parents of both, the newest that was accepted, and what was exported.
        """
        with self._database.write() as session:
            project = session.get_one(Project, project_id)
            query = select(Version).where(Version.project_id == project_id)
            versions = list(session.scalars(query.order_by(Version.number)))
            needed = _needed(project, versions) | {row.number for row in versions[-kept:]}
            dropped = [
                row
                for row in versions
                if row.weights_key and not row.is_dropped and row.number not in needed
            ]
            for row in dropped:
                row.is_dropped = True
            return dropped

    def add(
        self,
        version: Version,
        *,
        instead_of: int | None = None,
        ends: str | None = None,
        **project_values: Any,
    ) -> Version:
        """Store a version and set columns of its project, together.

        Args:
            version: to be stored.
            instead_of: number of the version in whose place it comes into use; where another one
                is in use by now it does not, and its metrics say so.
            ends: kind of the attempts that end with it.
            project_values: the columns.
        """
        with self._database.write() as session:
            project = session.get_one(Project, version.project_id)
            if instead_of == project.current_version:
                project.current_version = version.number
            elif instead_of is not None:
                why = f"somebody went back to v{project.current_version} while it was trained"
                version.metrics = {**version.metrics, NOT_IN_USE: why}
            session.add(version)
            assign(project, project_values)
            if ends is not None:
                ended = (Attempt.project_id == version.project_id, Attempt.kind == ends)
                session.execute(delete(Attempt).where(*ended))
            session.flush()
            return version

    def change(self, version_id: int, **values: Any) -> None:
        """Set columns of a version; `metrics` is merged into what is there."""
        with self._database.write() as session:
            row = session.get_one(Version, version_id)
            metrics = values.pop("metrics", None)
            if metrics:
                row.metrics = {**row.metrics, **metrics}
            assign(row, values)

    def judged(self, version_id: int, scores: Mapping[str, Any]) -> None:
        """Give a version its scores on what is held out, in place of those it had.

        scores: all that its metrics say of that; it waits for nothing more to judge it by.
        """
        with self._database.write() as session:
            row = session.get_one(Version, version_id)
            waits = {AWAITED, TRIED_WITH}
            kept = {
                name: it
                for name, it in row.metrics.items()
                if name not in waits and not name.startswith("validation_")
            }
            row.metrics = {**kept, **scores}


def _needed(project: Project, versions: Sequence[Version]) -> set[int | None]:
    """Numbers of the versions that are kept whatever their age."""
    in_use = {project.current_version, project.published_version}
    parents = {row.parent for row in versions if row.number in in_use}
    exported = {row.number for row in versions if row.metrics.get("exported_at")}
    accepted = {row.number for row in versions if row.is_accepted}
    return in_use | parents | exported | {max(accepted, default=None)}
