"""Links, anchors and commands of everything that users read are right."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer.main
import yaml

from ralis_backend.cli import app
from ralis_backend.labelstudio.payloads.label_config import parse_label_config
from ralis_backend.settings import load_settings, setting_names
from tests import REPOSITORY

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "policies/*.md", "benchmarks/**/*.md")
    for path in REPOSITORY.glob(pattern)
)
READ_BY_USERS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"] + [
    path for path in PAGES if path.parent == REPOSITORY / "docs"
]
RALIS = typer.main.get_command(app)
PLACEHOLDERS = {"N": "1", "H": "127.0.0.1", "P": "9090"}
OF_OTHERS = [
    ["label-studio", "start"],
    [".tools/bin/uv", "pip"],
    [".venv/bin/pre-commit", "install"],
]
OF_LABEL_STUDIO = {"ML_BLOCK_LOCAL_IP", "SSRF_PROTECTION_ENABLED"}
ASSIGNMENT = re.compile(r"[A-Z_]+=")
PYTHON_IS_RUN_BY = {
    "plug-ins.md": "tests/test_extension_points.py",
}


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and content of each fenced block."""
    fence = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
    for found in fence.finditer(page.read_text()):
        yield found[1], found[2]


def commands(page: Path) -> Iterator[list[str]]:
    """The lines of each block that is typed, or stands in `.env`."""
    for language, content in blocks(page):
        if language in ("", "sh", "bash", "console"):
            yield content.replace("\\\n", " ").splitlines()


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page.read_text()), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = base = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = 1
        while slug in found:
            slug, number = f"{base}-{number}", number + 1
        found.add(slug)
    return found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_and_anchor_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = unquote(target).partition("#")
        path = (page.parent / place).resolve() if place else page
        assert path.exists(), f"{named(page)} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors(path), f"{named(page)} links to {target}: no such heading"


@pytest.mark.parametrize("page", READ_BY_USERS, ids=named)
def test_no_paragraph_and_no_picture_stands_twice_on_a_page(page):
    paragraphs = [it for it in prose(page.read_text()).split("\n\n") if len(it) > 40]
    assert [it for it, count in Counter(paragraphs).items() if count > 1] == []


def test_every_page_of_the_documentation_can_be_reached_from_the_readme():
    waiting, reached = [REPOSITORY / "README.md"], set()
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for target in re.findall(r"\]\(([^)\s#]+\.md)", page.read_text()):
            linked = (page.parent / target).resolve()
            if linked.exists() and linked not in reached:
                waiting.append(linked)
    assert [named(page) for page in READ_BY_USERS if page not in reached] == []


@pytest.mark.parametrize("page", READ_BY_USERS, ids=named)
def test_every_command_of_a_block_exists_with_its_options(page):
    for line in (line for block in commands(page) for line in block):
        words = shlex.split(line, comments=True)
        while words and ASSIGNMENT.match(words[0]):
            assert words.pop(0).partition("=")[0] in {*setting_names(), *OF_LABEL_STUDIO}
        if words:
            _check(words)


@pytest.mark.parametrize("page", READ_BY_USERS, ids=named)
def test_every_block_of_settings_can_be_loaded(page, tmp_path):
    for block in commands(page):
        words = [word for line in block for word in shlex.split(line, comments=True)]
        if all(map(ASSIGNMENT.match, words)):
            (tmp_path / ".env").write_text("\n".join(words))
            load_settings(tmp_path / ".env")


@pytest.mark.parametrize("page", READ_BY_USERS, ids=named)
def test_every_command_in_the_text_exists_with_its_options(page):
    for span in re.findall(r"`([^`\n]+)`", prose(page.read_text())):
        words = span.split()
        if words[0].removeprefix(".venv/bin/") == "ralis":
            _ralis_names(span)
        elif words[0] == "make" and len(words) > 1:
            _make(shlex.split(span)[1:])


@pytest.mark.parametrize("page", READ_BY_USERS, ids=named)
def test_every_setting_that_is_named_exists(page):
    makefile = (REPOSITORY / "Makefile").read_text()
    tests = "".join(path.read_text() for path in (REPOSITORY / "tests").rglob("*.py"))
    for name in re.findall(r"\b(?:RALIS|LABEL_STUDIO)_[A-Z_]+\b", page.read_text()):
        is_known = name in setting_names() or name in makefile or name in tests
        assert is_known or name in _compose(), f"{named(page)} names {name}, which is no setting"


@pytest.mark.parametrize("page", READ_BY_USERS, ids=named)
def test_every_label_config_can_be_connected(page):
    for language, content in blocks(page):
        if language == "xml":
            is_whole = content.lstrip().startswith("<View")
            assert parse_label_config(content if is_whole else _inside_a_view(content)).labels


@pytest.mark.parametrize("page", READ_BY_USERS, ids=named)
def test_every_python_block_is_run_by_a_test(page):
    for language, content in blocks(page):
        if language == "python":
            compile(content, named(page), "exec")
            assert (REPOSITORY / PYTHON_IS_RUN_BY[page.name]).is_file()


def _inside_a_view(fragment: str) -> str:
    brush = '<BrushLabels name="brush" toName="image"><Label value="road"/></BrushLabels>'
    return f'<View><Image name="image" value="$image"/>{brush}{fragment}</View>'


def _check(words: list[str]) -> None:
    program, *rest = words
    if program.removeprefix(".venv/bin/") == "ralis":
        _ralis(rest)
    elif words[:3] == ["benchmarks/gpu/python", "-m", "ralis_backend.cli"]:
        _ralis(words[3:])
    elif program == "make":
        _make(rest)
    elif words[:2] == ["docker", "compose"]:
        _docker_compose(words[2:])
    elif program == "benchmarks/gpu/python":
        source = (REPOSITORY / rest[0]).read_text()
        options = [word for word in rest if word.startswith("--")]
        assert all(f'"{option}"' in source for option in options), f"{rest[0]} lacks one: {options}"
    elif program == "cp":
        assert (REPOSITORY / rest[0]).is_file(), rest[0]
    else:
        assert words[:2] in OF_OTHERS, f"nothing checks {' '.join(words)!r}"


def _ralis(words: list[str]) -> None:
    """The words are parsed by the command's own parser, to the last value."""
    words = [PLACEHOLDERS.get(word, word) for word in words]
    command, name = RALIS, "ralis"
    with command.make_context(name, list(words), resilient_parsing=True) as context:
        while hasattr(command, "get_command"):
            name, words = words[0], words[1:]
            command = command.get_command(context, name)
            assert command is not None, f"there is no command {name}"
        command.make_context(name, words)


def _ralis_names(span: str) -> None:
    """The command and the names of its options exist; some are left out in running text."""
    words = re.sub(r"[\[\]]", "", span).split()[1:]
    command = RALIS
    while words and hasattr(command, "get_command"):
        found = command.get_command(None, words[0])
        if found is None:
            assert words[0].startswith("--"), f"there is no command {span!r}"
            break
        command, words = found, words[1:]
    offered = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    for word in words:
        if word.startswith("-"):
            assert word.partition("=")[0] in offered, f"{span!r}: there is no {word}"


@pytest.mark.parametrize(
    "target",
    ["reproduce-benchmark", "reproduce-benchmark-long", "reproduce-default", "reproduce-rewards"],
)
def test_every_line_of_what_reproduces_results_is_a_command_that_exists(target):
    done = ["-o", ".venv/.installed", "OPTIONS=--jobs 2"]
    command = ["make", "--no-print-directory", "-n", *done, target]
    shown = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    lines = [line for line in shown.stdout.replace("\\\n", " ").splitlines() if line.strip()]
    assert lines
    for line in lines:
        program, *words = line.split()
        assert program in (".venv/bin/ralis", ".venv/bin/python", "cp"), line
        if program == ".venv/bin/ralis":
            _ralis_names(line)
        elif program == "cp":
            assert all((REPOSITORY / word).is_file() for word in words[:-1])


def _make(words: list[str]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for word in words:
        name, is_variable, _ = word.partition("=")
        if is_variable:
            assert re.search(rf"\b{name}\b", makefile), f"make knows no variable {name}"
        else:
            targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
            assert name in targets, f"make knows no target {name}"


def _compose() -> str:
    return (REPOSITORY / "docker" / "docker-compose.yml").read_text()


def _docker_compose(words: list[str]) -> None:
    (files,) = re.findall(
        r"^COMPOSE_FILE=(.+)$", (REPOSITORY / ".env.example").read_text(), re.MULTILINE
    )
    assert all((REPOSITORY / name).is_file() for name in files.split(":"))
    assert words[0] in ("up", "down", "exec", "logs", "ps"), words
    if words[0] == "exec":
        service, program, *rest = words[1:]
        assert service in yaml.safe_load(_compose())["services"]
        assert program == "ralis"
        _ralis(rest)
