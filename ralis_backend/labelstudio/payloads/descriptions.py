"""A project's description with a line of ours, beside what its owner wrote."""

from __future__ import annotations

import re
from typing import Any

from ralis_backend.core.text import storable

MAX_CHARACTERS = 1000
_LINE = re.compile(r"\[RALIS:[^\]]*\]")
_GAP = re.compile(r"\n{3,}")


def with_line(description: Any, line: str) -> str:
    """The description with `[RALIS: <line>]` in place of the one that is in it, else at its end.

    Args:
        description: as Label Studio has it; anything but text counts as empty.
        line: what is said; brackets in it become round ones.
    """
    text = description if isinstance(description, str) else ""
    told = storable(line.translate({ord("["): "(", ord("]"): ")"}))[:MAX_CHARACTERS]
    ours = f"[RALIS: {told}]"
    first = _LINE.search(text)
    if first is None:
        return f"{text.rstrip()}\n\n{ours}" if text.strip() else ours
    rest = _LINE.sub("", text[first.end() :])
    return _GAP.sub("\n\n", f"{text[: first.start()]}{ours}{rest}").rstrip()
