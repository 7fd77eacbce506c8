"""Texts from other people -> cells of a CSV file that every program takes for text."""

from __future__ import annotations

import re

_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠|%]")


def inert(text: str) -> str:
    """A cell that no spreadsheet takes for a formula, on one line.

    What begins like one gets an apostrophe in front, which spreadsheets do not show.
    """
    line = "".join(character if character.isprintable() else " " for character in text)
    return f"'{line}" if _FORMULA.match(line) else line
