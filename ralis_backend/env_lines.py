"""The lines of `.env` -> refused where one of ours would be dropped, or a part of its value.

python-dotenv takes what it understands and says nothing of the rest: that may be the credentials.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Mapping

from dotenv.parser import Binding, parse_stream
from dotenv.variables import Variable, parse_variables

_NEW_LINE = re.compile(r"\r\n|\n|\r")
_NAME = re.compile(r"\s*(?:(?:export|set)\s+)?['\"]?(\w+)", re.ASCII)
_SETS = re.compile(rf"{_NAME.pattern}['\"]?\s*[=:]", re.ASCII)
_COMMENT = re.compile(r"=\s*[^\s'\"#][^\r\n]*\s#")
"""Behind a value without quotes."""


class LineError(ValueError):
    """What is wrong with a line, what was expected, never what stands in it; its `number`."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(what)
        self.number = number


def check_lines(
    text: str,
    is_ours: Callable[[str], bool],
    secrets: Collection[str],
    variables: Mapping[str, str],
) -> None:
    """Return if every line of ours is read as a whole; others' lines are theirs to judge.

    Args:
        text: what stands in the file.
        is_ours: whether a name is one of ours.
        secrets: names in capitals whose values must not be cut where a comment may begin.
        variables: that values may name, besides those further up in the file.

    Raises:
        LineError: of the first line that would be dropped.
    """
    known = dict(variables)
    for binding in parse_stream(io.StringIO(text)):
        content = binding.original.string.lstrip()
        blank = binding.original.string.removesuffix(content)
        number = binding.original.line + len(_NEW_LINE.findall(blank))
        lines = _NEW_LINE.split(content)
        _check_swallowed(binding, lines, number, is_ours)
        if binding.key is None or binding.error:
            continue
        if _is_named(binding.key, _NAME, is_ours):
            _check_ours(binding, number, secrets, known)
        values = [it.resolve(known) for it in parse_variables(binding.value or "")]
        known[binding.key] = "".join(values)


def _check_swallowed(
    binding: Binding, lines: list[str], number: int, is_ours: Callable[[str], bool]
) -> None:
    """Of what cannot be read, and of a value of several lines, nothing may be ours."""
    within = [at for at, line in enumerate(lines) if at and _is_named(line, _SETS, is_ours)]
    if binding.error and (within or _is_named(lines[0], _NAME, is_ours)):
        raise LineError(
            number,
            "cannot be read; expected NAME=value, the value in quotes if it has spaces, quotes or "
            "# in it, and the quotes closed",
        )
    if within:
        raise LineError(
            number + within[0],
            f"stands within the quotes that line {number} opens; expected those closed in line "
            f"{number}",
        )


def _check_ours(
    binding: Binding, number: int, secrets: Collection[str], known: Mapping[str, str]
) -> None:
    name, value = str(binding.key), binding.value
    if value is None or not re.fullmatch(r"\w+", name, re.ASCII):
        raise LineError(number, "has a name without a value; expected NAME=value")
    if name.upper() in secrets and _COMMENT.search(binding.original.string):
        raise LineError(
            number,
            "has a # behind a space, where a comment begins; expected the value in quotes, and a "
            "comment on a line of its own",
        )
    used = [it for it in parse_variables(value) if isinstance(it, Variable)]
    if any(it.default is None and not known.get(it.name) for it in used):
        raise LineError(
            number,
            "has ${...} of a variable that is not set; expected one that is set in the "
            "environment or further up, or a default, ${NAME:-default}; a value in which ${ "
            "stands for itself goes into the environment",
        )


def _is_named(text: str, form: re.Pattern[str], is_ours: Callable[[str], bool]) -> bool:
    found = form.match(text)
    return found is not None and is_ours(found[1])
