"""What unpainted pixels of a labelled region are: a class of the project, or nothing at all.

A choice is a name, `NO_BACKGROUND`, or None for "as usual": the operator's default; without one, a
class of its own where the config has a single label, and nothing elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Literal

NO_BACKGROUND = ""
MAX_CHARACTERS = 500
COLOR = "#505050"
"""Of a background that has no label."""
EXAMPLE = '{"background": "Background"}'


class Kept(Enum):
    """Says that a project's choice stays as it is."""

    CHOICE = "kept"


Origin = Literal["chosen", "setting", "one label"]
"""Who says what the background is: the project, the operator's setting, or nobody."""

_NAMES = ("Background", "Other")


def read_choice(value: Any) -> str | None:
    """A choice as people write it in the connection's extra params.

    Args:
        value: a name; `false` for none; null or an empty text for "as usual".

    Raises:
        ValueError: if it is anything else, or no name that can be shown.
    """
    if value is None or value is False:
        return None if value is None else NO_BACKGROUND
    if not isinstance(value, str):
        raise ValueError(
            f"'background' is of the type {type(value).__name__}, expected the name of a class, or "
            f"false where unpainted pixels say nothing; example: {EXAMPLE}"
        )
    name = value.strip()
    if len(name) > MAX_CHARACTERS or not name.isprintable():
        raise ValueError(
            f"'background' must be a name of at most {MAX_CHARACTERS} printable characters; "
            f"example: {EXAMPLE}"
        )
    return name or None


def said_choice(
    extra_params: Mapping[str, Any], labels: Sequence[str]
) -> str | Literal[Kept.CHOICE] | None:
    """The choice in a connection's extra params; `Kept.CHOICE` where they say nothing of it.

    Raises:
        ValueError: if it is malformed, or nothing could be learned with it.
    """
    if "background" not in extra_params:
        return Kept.CHOICE
    choice = read_choice(extra_params["background"])
    check_choice(choice, labels)
    return choice


def check_choice(choice: str | None, labels: Sequence[str]) -> None:
    """Raise `ValueError` if nothing could be learned with this choice."""
    if len(labels) != 1 or choice is None:
        return
    if choice == NO_BACKGROUND or _among(labels, choice):
        said = "no background" if choice == NO_BACKGROUND else f"the background {choice!r}"
        raise ValueError(
            f"the config has the single label {labels[0]!r}, and {said} would leave the model "
            f"nothing to tell it from; name another class for unpainted pixels, as {EXAMPLE} in "
            "the connection's extra params or with `ralis connect --project N --background NAME`, "
            "or leave it out"
        )


def background_of(
    labels: Sequence[str],
    choice: str | None,
    default: str | None,
    kept: str | None = None,
) -> tuple[str, Origin] | None:
    """Name and origin of the class that unpainted pixels get; None: they are VOID.

    A name that differs from a label by capitals alone is that label.

    Args:
        labels: of the label config.
        choice: of the project.
        default: the operator's setting.
        kept: a background that a single label had brought, and that something was labelled with:
            it stays when further labels come.
    """
    if not labels:
        return None
    origin: Origin
    for name, origin in ((choice, "chosen"), ((default or "").strip() or None, "setting")):
        if name == NO_BACKGROUND and len(labels) != 1:
            return None
        if name and not (len(labels) == 1 and _among(labels, name)):
            return _among(labels, name) or name, origin
    if len(labels) == 1:
        usual = next(name for name in (kept, *_NAMES) if name and not _among(labels, name))
        return usual, "one label"
    return (_among(labels, kept) or kept, "one label") if kept else None


def marked(
    classes: Sequence[dict[str, Any]], labels: Sequence[str], background: tuple[str, Origin] | None
) -> list[dict[str, Any]]:
    """The class table with that background, in a class of its own where no label has the name.

    Args:
        classes: of the project, its labels among them.
        labels: of the label config; other classes are active as a background alone.
        background: name and origin, None for none.
    """
    name, origin = background or (None, None)
    table = [{k: v for k, v in entry.items() if k != "background"} for entry in classes]
    if name is not None and name not in (entry["name"] for entry in table):
        table.append({"name": name, "color": COLOR})
    for entry in table:
        entry["is_active"] = entry["name"] in labels or entry["name"] == name
        if entry["name"] == name:
            entry["background"] = origin
    return table


def class_names(labels: Sequence[str], background: tuple[str, Origin] | None) -> list[str]:
    """The labels, and the background where it is none of them."""
    return [*labels, *([background[0]] if background and background[0] not in labels else [])]


def described(background: tuple[str, Origin] | None, labels: Sequence[str]) -> str:
    """For whoever connects a project: what unpainted pixels are, why, and how to change it."""
    if background is None:
        return (
            "unpainted pixels of a submitted region say nothing (void); `ralis connect "
            "--project N --background NAME` makes them a class"
        )
    name, origin = background
    why = {
        "chosen": "as chosen for this project",
        "setting": "by RALIS_BACKGROUND_LABEL",
        "one label": "on by itself, since the config has one label"
        if len(labels) == 1
        else "from when the config had one label; `ralis connect --project N --no-background` "
        "ends it",
    }[origin]
    own = "" if name in labels else ", a class without a label to paint"
    return f"unpainted pixels of a submitted region are {name!r}{own} ({why})"


def _among(labels: Sequence[str], name: str | None) -> str | None:
    """The label of that name, if need be in other capitals."""
    if name is None or name in labels:
        return name
    alike = [label for label in labels if label.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else None
