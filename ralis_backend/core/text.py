"""Text from outside -> text that can stand in a line of a log or a terminal, or in a database."""

from __future__ import annotations

import re
import unicodedata

_SUSPECT = re.compile(r"[^ -~]")
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
"""Control characters, direction marks, lone surrogates, line separators, what is no character."""


def printable(text: str) -> str:
    """The text with everything that moves the cursor or is not seen escaped, as in Python."""
    return _SUSPECT.sub(_escape, text)


def printable_lines(text: str) -> str:
    """As `printable`, of a message of several lines: those after the first are indented."""
    return "\n  ".join(printable(line.removeprefix("  ")) for line in text.split("\n"))


def shortened(text: str, most: int) -> str:
    """At most so many characters of a text; where it was longer it says so."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def storable(text: str) -> str:
    """Text with a question mark for what no database takes: JSON may hold half characters."""
    return text.replace("\0", "?").encode(errors="replace").decode()


def reason_of(error: BaseException) -> str:
    """What an error says, `storable`; its kind where it says nothing, as one of memory does."""
    return storable(str(error)) or type(error).__name__


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if unicodedata.category(character) not in _UNSEEN:
        return character
    return character.encode("unicode_escape").decode()
