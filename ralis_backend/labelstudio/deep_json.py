"""JSON from others, however deep it is nested: what no reader follows is null."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DEPTH = 100
"""Of lists and objects in each other; Label Studio's own answers have about ten."""
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


def parsed(content: bytes) -> Any:
    """The JSON value of an answer; where it is nested too deep, null stands for what is deeper.

    Raises:
        ValueError: if it is no JSON.
    """
    try:
        return json.loads(content)
    except RecursionError:
        return json.loads(_cut(content.decode(json.detect_encoding(content), "surrogatepass")))


def _cut(text: str) -> str:
    kept: list[str] = []
    depth = start = 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth == MAX_DEPTH + 1:
                kept += [text[start : token.start()], "null"]
        elif token[0] in "]}":
            depth -= 1
            if depth == MAX_DEPTH:
                start = token.end()
    return "".join([*kept, text[start:]]) if depth == 0 else ""
