"""The lines of `.env` -> refused where one of ours would be dropped, or a part of its value.

python-dotenv takes what it understands and says nothing of the rest: that may be the credentials.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Mapping

from dotenv.parser import Binding, parse_stream
from dotenv.variables import Literal, Variable, parse_variables

_NEW_LINE = re.compile(r"\r\n|\n|\r")
_NAME = re.compile(r"\s*(?:(?:export|set)\s+)?['\"]?(\w+)", re.ASCII)
_SETS = re.compile(rf"{_NAME.pattern}['\"]?\s*[=:]", re.ASCII)
_ANYWHERE = re.compile(r"(?<!\w)(\w+)['\"]?\s*[=:]", re.ASCII)
_FURTHER = re.compile(r"[\s;&|](\w+)=", re.ASCII)
"""In a value without quotes: a shell would set this variable, too."""
_BARE = re.compile(r"[^=]*=\s*[^\s'\"]")
_REST = re.compile(r"(?:^|\s)#.*")
_COMMENT = re.compile(r"[^=]*=\s*[^\s'\"#][^\r\n]*\s#")
"""Behind a value without quotes."""


class LineError(ValueError):
    """What is wrong with a line, what was expected, never what stands in it; its `number`."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(what)
        self.number = number


def check_lines(
    text: str,
    is_ours: Callable[[str], bool],
    uncut: Collection[str],
    variables: Mapping[str, str],
) -> None:
    """Return if every line of ours is read as a whole; others' lines are theirs to judge.

    Args:
        text: what stands in the file.
        is_ours: whether a name is one of ours.
        uncut: names in capitals whose values must not be cut where a comment may begin.
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
        _check_further(binding, number, is_ours)
        if _is_named(binding.key, _NAME, is_ours):
            _check_ours(binding, number, uncut, known)
        values = [it.resolve(known) for it in parse_variables(binding.value or "")]
        known[binding.key] = "".join(values)


def _check_swallowed(
    binding: Binding, lines: list[str], number: int, is_ours: Callable[[str], bool]
) -> None:
    """Of what cannot be read, and of a value of several lines, nothing may be ours."""
    within = [at for at, line in enumerate(lines) if at and _is_named(line, _SETS, is_ours)]
    is_lost = _is_named(lines[0], _NAME, is_ours) or _names_ours(_ANYWHERE, lines[0], is_ours)
    if binding.error and (within or is_lost):
        raise LineError(
            number,
            "cannot be read; expected NAME=value and nothing before it, the value in quotes if it "
            "has spaces, quotes or # in it, and the quotes closed",
        )
    if within:
        raise LineError(
            number + within[0],
            f"stands within the quotes that line {number} opens; expected those closed in line "
            f"{number}",
        )


def _check_further(binding: Binding, number: int, is_ours: Callable[[str], bool]) -> None:
    """Neither the name, as in `$env:NAME`, nor the value may have one of ours in it."""
    name, is_bare = str(binding.key), _BARE.match(binding.original.string)
    is_part = not re.fullmatch(r"\w+", name, re.ASCII) and not _is_named(name, _NAME, is_ours)
    if is_part and _names_ours(_ANYWHERE, f"{name}=", is_ours):
        raise LineError(number, "has something before the name; expected NAME=value")
    if is_bare and _names_ours(_FURTHER, binding.value or "", is_ours):
        raise LineError(
            number,
            "sets a second variable within its value; expected each on a line of its own, or the "
            "value in quotes",
        )


def _check_ours(
    binding: Binding, number: int, uncut: Collection[str], known: Mapping[str, str]
) -> None:
    name, value = str(binding.key), binding.value
    if value is None or not re.fullmatch(r"\w+", name, re.ASCII):
        raise LineError(number, "has a name without a value; expected NAME=value")
    if name.upper() in uncut and _COMMENT.match(binding.original.string):
        raise LineError(
            number,
            "has a # behind a space, where a comment begins; expected the value in quotes, and a "
            "comment on a line of its own",
        )
    atoms = [*parse_variables(value)]
    if any(re.search(r"\$\{[^}]*\}", it.resolve({})) for it in atoms if isinstance(it, Literal)):
        raise LineError(
            number,
            "has ${...} in a form that is not read; expected ${NAME} or ${NAME:-default}; a value "
            "in which ${ stands for itself goes into the environment",
        )
    used = [it for it in atoms if isinstance(it, Variable)]
    if any(it.default is None and not known.get(it.name) for it in used):
        raise LineError(
            number,
            "has ${...} of a variable that is not set, or empty; expected one that is set in the "
            "environment or further up, or a default, ${NAME:-default}; a value in which ${ "
            "stands for itself goes into the environment",
        )


def _is_named(text: str, form: re.Pattern[str], is_ours: Callable[[str], bool]) -> bool:
    found = form.match(text)
    return found is not None and is_ours(found[1])


def _names_ours(form: re.Pattern[str], text: str, is_ours: Callable[[str], bool]) -> bool:
    """Whether one of ours is named anywhere but in a comment."""
    return any(is_ours(found[1]) for found in form.finditer(_REST.sub("", text)))
