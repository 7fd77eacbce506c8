from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from ralis_backend.core.registry import Registry
from tests import plug_in

GROUP = "ralis_backend.test_things"


@pytest.fixture
def things() -> Registry[int]:
    registry: Registry[int] = Registry("thing", GROUP)
    registry.register("one", 1)
    return registry


def install(folder: Path, entries: str, module: str) -> None:
    """A package as pip leaves it: a module, and metadata that name its entry points."""
    (folder / "brought_along.py").write_text(module)
    plug_in.install(folder, "brought-along", "1.2", {GROUP: entries})


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("brought_along", None)


def test_a_thing_is_found_by_its_name_and_an_unknown_name_lists_all(things):
    assert things.find("one") == things["one"] == 1
    with pytest.raises(ValueError, match="unknown thing 'two'; expected one of one"):
        things.find("two")
    with pytest.raises(KeyError):
        things["two"]


def test_a_name_stands_for_one_thing(things):
    assert things.register("one", 1) == 1  # again, as when a module is loaded twice
    with pytest.raises(ValueError, match="there is a thing 'one' already"):
        things.register("one", 2)
    methods: Registry[object] = Registry("method", GROUP)
    methods.register("lower", "A".lower)
    methods.register("lower", "A".lower)  # another object, the same method
    things["two"] = 2
    assert dict(things) == {"one": 1, "two": 2}
    del things["two"]
    assert "two" not in things


def test_what_is_no_such_thing_is_refused():
    def check(thing: int) -> None:
        if thing < 0:
            raise ValueError(f"{thing} is negative")

    registry: Registry[int] = Registry("thing", GROUP, check)
    with pytest.raises(ValueError, match="-1 is negative"):
        registry.register("less", -1)
    assert len(registry) == 0


def test_another_package_brings_things_along(things, site):
    install(site, "seven = brought_along:SEVEN", "SEVEN = 7")
    assert things["seven"] == 7
    assert list(things) == ["one", "seven"]


def test_nothing_is_loaded_before_it_is_asked_for(things, site):
    install(site, "seven = brought_along:SEVEN", "SEVEN = 7")
    assert things["one"] == 1
    assert "brought_along" not in sys.modules


@pytest.mark.parametrize(
    ("entries", "module", "message"),
    [
        ("seven = brought_along:SEVEN", "import nowhere_to_be_found", "No module named"),
        ("seven = brought_along:EIGHT", "SEVEN = 7", "EIGHT"),
        ("one = brought_along:SEVEN", "SEVEN = 7", "there is a thing 'one' already"),
    ],
)
def test_a_package_that_fails_is_left_out_and_named(things, site, caplog, entries, module, message):
    install(site, entries, module)
    with caplog.at_level(logging.ERROR):
        assert list(things) == ["one"]
    assert "of package brought-along 1.2 is left out" in caplog.text
    assert message in caplog.text
    assert things["one"] == 1
