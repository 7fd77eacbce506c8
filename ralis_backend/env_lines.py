"""The lines of `.env` -> refused where one of ours would be dropped, or a part of its value.

python-dotenv takes what it understands and says nothing of the rest: that may be the credentials.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Collection, Mapping
from itertools import takewhile

from dotenv.parser import Binding, parse_stream
from dotenv.variables import Literal, Variable, parse_variables

_NEW_LINE = re.compile(r"\r\n|\n|\r")
_NAME = re.compile(r"\s*(?:(?:export|set)\s+)?['\"]?(\w+)", re.ASCII)
_SETS = re.compile(rf"{_NAME.pattern}['\"]?\s*[=:]", re.ASCII)
_PARTED = re.compile(
    r"\s*(?:(?:export|set)\s+)?['\"]?(\w+)((?:[ \t-]+\w+)+)['\"]?\s*[=:]", re.ASCII
)
"""A name that has spaces or `-` in it: its first part, and all behind."""
_WORD = re.compile(r"(?<!\w)(?:-e)?(\w+)", re.ASCII)
_ASSIGNMENT = re.compile(r"(?:-e)?(\w+)=", re.ASCII)
_FURTHER = re.compile(r"[\s;&|](\w+)=", re.ASCII)
"""In a value without quotes: a shell would set this variable, too."""
_BETWEEN = re.compile(r"(?:\s|;|&&|\|\|)+(?:export\s+)?")
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
    known, set_by = dict(variables), dict[str, tuple[int, str]]()
    for binding in parse_stream(io.StringIO(text)):
        content = binding.original.string.lstrip()
        blank = binding.original.string.removesuffix(content)
        number = binding.original.line + len(_NEW_LINE.findall(blank))
        lines = _NEW_LINE.split(content)
        _check_parted(lines[0], number, is_ours)
        _check_swallowed(binding, lines, number, is_ours)
        if binding.key is None or binding.error:
            continue
        _check_further(binding, number, is_ours)
        if _is_named(binding.key, _NAME, is_ours):
            _check_ours(binding, number, uncut, known)
        values = [it.resolve(known) for it in parse_variables(binding.value or "")]
        known[binding.key] = "".join(values)
        if is_ours(binding.key):
            _check_repeated(binding.key.upper(), known[binding.key], number, set_by)


def _check_parted(line: str, number: int, is_ours: Callable[[str], bool]) -> None:
    found = _PARTED.match(line)
    if found and not is_ours(found[1]) and is_ours(found[1] + re.sub(r"[\s-]+", "_", found[2])):
        raise LineError(number, "has - or a space in its name; expected _ in its place")


def _check_repeated(name: str, value: str, number: int, set_by: dict[str, tuple[int, str]]) -> None:
    """The last line of a name would win, in capitals or not, without a word of the others.

    An empty one may come before: as of an example that somebody fills in further down.
    """
    if not value and name not in set_by:
        return
    first, known = set_by.setdefault(name, (number, value))
    if known != value:
        raise LineError(
            number,
            f"sets what line {first} sets to another value; expected one line for each name",
        )


def _check_swallowed(
    binding: Binding, lines: list[str], number: int, is_ours: Callable[[str], bool]
) -> None:
    """Of what cannot be read, and of a value of several lines, nothing may be ours."""
    within = [at for at, line in enumerate(lines) if at and _is_named(line, _SETS, is_ours)]
    if binding.error and (within or _names_ours(_WORD, lines[0], is_ours)):
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
    """Nothing of ours may stand in the name, as in `$env:NAME`, nor be set within the value."""
    name, value = str(binding.key), binding.value or ""
    is_bare = _BARE.match(binding.original.string) is not None
    if _is_named(name, _NAME, is_ours):
        is_further = is_bare and _names_ours(_FURTHER, value, is_ours)
    else:
        is_part = not re.fullmatch(r"\w+", name, re.ASCII) and _names_ours(_WORD, name, is_ours)
        if is_part or _is_named(value, _ASSIGNMENT, is_ours):
            raise LineError(number, "has something before the name; expected NAME=value")
        is_further = is_bare and _sets_ours(value, is_ours)
    if is_further:
        raise LineError(
            number,
            "sets a second variable within its value; expected each on a line of its own, or the "
            "value in quotes",
        )


def _sets_ours(value: str, is_ours: Callable[[str], bool]) -> bool:
    """Whether a shell would set one of ours behind a value: of a command it sets none."""
    found = takewhile(bool, map(_ASSIGNMENT.match, _BETWEEN.split(value)[1:]))
    return any(is_ours(it[1]) for it in found if it)


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
    used = [it for it in atoms if isinstance(it, Variable)]
    is_odd = any(re.search(r"\$\{[^}]*\}", it.value) for it in atoms if isinstance(it, Literal))
    if is_odd or any("${" in (it.default or "") for it in used):
        raise LineError(
            number,
            "has ${...} in a form that is not read; expected ${NAME} or ${NAME:-default}; a value "
            "in which ${ stands for itself goes into the environment",
        )
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
