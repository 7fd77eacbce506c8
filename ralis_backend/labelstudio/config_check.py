"""A labelling interface before anything is connected: what is served, and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ralis_backend.labelstudio.doctor import Check
from ralis_backend.labelstudio.payloads.label_config import (
    MAX_CHARACTERS,
    REGION_LABEL,
    LabelConfig,
    LabelConfigError,
    parse_label_config,
    parse_xml,
)
from ralis_backend.labelstudio.payloads.regions_config import carried_tags
from ralis_backend.online.background import background_of, described

MAX_BYTES = 4 * MAX_CHARACTERS
MOST_NAMED = 20
"""Labels and tags that a line names."""
_LAYOUT = frozenset({"View", "Style", "Label", "Choice", "Header"})
"""Tags that belong to others, or to the layout, which the regions project has of its own."""


def label_config_checks(
    xml: str, region_label: str = REGION_LABEL, background_label: str | None = None
) -> Iterator[Check]:
    """What `ralis connect` would make of a label config; the first check fails if it is refused."""
    try:
        config = parse_label_config(xml, region_label)
    except LabelConfigError as error:
        fix = "change the labelling interface as the message says"
        yield Check("label config", False, str(error), fix)
        return
    labels = [label.name for label in config.labels]
    controls = " and ".join(f"{it.name!r} ({it.type})" for it in config.controls)
    yield Check(
        "label config",
        True,
        f"{len(labels)} label{'s' if len(labels) > 1 else ''}, {_named(labels)}, painted with "
        f"{controls} on Image {config.image_name!r}, whose address stands in each task's data "
        f"under {config.image_key!r}",
    )
    yield Check(
        "background", True, described(background_of(labels, None, background_label), labels)
    )
    yield Check("suggested masks", True, f"{config.control_type}, with {config.control_name!r}")
    yield Check("in place", True, _shown_in_place(config, region_label))
    yield from _regions_checks(config)


def read_label_config(path: Path) -> str:
    """The text of a file.

    Raises:
        ValueError: if it is no text, or far larger than any label config.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES} bytes; that is no label config")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}") from None


def _shown_in_place(config: LabelConfig, region_label: str) -> str:
    if config.region_control is not None:
        return f"suggested regions are shown as boxes, with {config.region_control!r}"
    return (
        "annotators do not see which regions are meant, and what they paint beside them counts "
        f"too; add RectangleLabels with the label {region_label!r} (docs/labelling.md)"
    )


def _regions_checks(config: LabelConfig) -> Iterator[Check]:
    carried = carried_tags(config)
    tools = [f"{tag} {name!r}" for tag, name in carried]
    yield Check("regions project", True, f"gets {_named(tools)}")
    others = [
        f"{it.tag} {it.get('name')!r}" if it.get("name") else it.tag
        for it in parse_xml(config.xml).iter()
        if it.tag not in _LAYOUT and (it.tag, it.get("name", "")) not in carried
    ]
    if others:
        yield Check(
            "left out there", True, f"{_named(others)}: annotators of regions do not see it"
        )


def _named(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
