"""Label Studio's labelling interface (XML) -> its segmentation controls, their image, their labels.

What cannot be served is refused with the tag's name and what to write instead.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from PIL import ImageColor

from ralis_backend.core.palette import distinct_color, hexadecimal
from ralis_backend.core.regions import VOID
from ralis_backend.online.tool import ClassLabel

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 100
MAX_NAME = 500
"""Characters of a label's name."""
SEGMENTATION_CONTROLS = {
    "BrushLabels": "brushlabels",
    "BitmaskLabels": "bitmasklabels",
    "PolygonLabels": "polygonlabels",
}
"""Tags whose labels are masks, and the type of their results; masks are suggested with the first
of them that a config has."""
KEPT_CLASS = "ralis-kept"
"""Of the view with controls that are no longer drawn with: annotations were."""
REGION_LABEL = "Suggested region"
REGION_COLOR = "#FF00FF"

_EXAMPLE = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="road"/><Label value="car"/></BrushLabels></View>'
)
_ONE_IMAGE = 'write one <Image name="image" value="$image"/>, and import a task for each image'
REFUSED_TAGS = {
    "Repeater": f"it shows several images in one task; {_ONE_IMAGE}",
    "Video": "videos are not served; export their frames as images and write an Image instead",
    "VideoRectangle": "videos are not served; export their frames as images and write an Image",
    "VectorLabels": "lines cover no pixels; write PolygonLabels or BrushLabels instead",
    "Vector": "lines cover no pixels; write PolygonLabels or BrushLabels instead",
}
"""Tags of interfaces that cannot be served wherever they stand, and what to do instead."""
_NO_MASKS = ("RectangleLabels", "EllipseLabels", "KeyPointLabels", "Labels")
HELPERS = frozenset(
    {"MagicWand", "Brush", "Bitmask", "Polygon", "KeyPoint", "Rectangle", "Ellipse"}
)
"""Tools without labels."""
_TAGS = {
    tag.lower(): tag
    for tag in (
        *(*SEGMENTATION_CONTROLS, *REFUSED_TAGS, *_NO_MASKS, *HELPERS),
        *("View", "Image", "Label", "Choices", "Choice", "Header", "Style"),
    )
}
"""Label Studio reads tags in any case."""
_ALPHA = re.compile(r"^(rgb|hsl)a\(([^()]*),[^(),]*\)$", re.IGNORECASE)
_KEY = re.compile(r"\$[^\s$.\[\]{}/\\:?&=]+")


class LabelConfigError(ValueError):
    """A labelling interface that this backend cannot serve; the message says what to change."""


@dataclass(frozen=True)
class Control:
    """A segmentation control: its name, and the type of its results, such as `brushlabels`."""

    name: str
    type: str


@dataclass(frozen=True)
class LabelConfig:
    """What the backend needs of a labelling interface.

    image_name, image_key: the Image tag, and the key of a task's data that it shows.
    controls: the segmentation controls; all have the same labels.
    labels: names as they stand in results (a label's alias where it has one), and colours.
    region_control, region_label: the RectangleLabels control for suggested regions, if any.
    xml: where all of it was read.
    """

    image_name: str
    image_key: str
    controls: tuple[Control, ...]
    labels: tuple[ClassLabel, ...]
    region_control: str | None
    region_label: str
    xml: str = field(repr=False, compare=False, default="")

    @property
    def control_name(self) -> str:
        """The control that masks are suggested with."""
        return self._written.name

    @property
    def control_type(self) -> str:
        """The type of the results that masks are suggested as."""
        return self._written.type

    @property
    def _written(self) -> Control:
        order = list(SEGMENTATION_CONTROLS.values())
        return min(self.controls, key=lambda control: order.index(control.type))


def parse_label_config(xml: str, region_label: str = REGION_LABEL) -> LabelConfig:
    """The segmentation controls of a labelling interface, their image and their labels.

    Args:
        xml: the project's label config; views may be nested. It comes with every request and is
            remembered.
        region_label: names the rectangles of suggested regions.

    Raises:
        LabelConfigError: if it is no XML, or there is no BrushLabels, BitmaskLabels or
            PolygonLabels control on exactly one Image, or they differ in their labels, or there
            is something that cannot be served.
    """
    if not isinstance(xml, str):
        raise LabelConfigError(f"the label config is a {type(xml).__name__}, expected XML text")
    return _label_config(xml, region_label)


@lru_cache(maxsize=64)
def _label_config(xml: str, region_label: str) -> LabelConfig:
    elements = list(offered(parse_xml(xml)))
    _refuse_tags(elements)
    controls = _segmentation_controls(elements)
    image = _image(elements, controls)
    return LabelConfig(
        image_name=image.get("name", ""),
        image_key=_data_key(image),
        controls=tuple(
            Control(it.get("name", ""), SEGMENTATION_CONTROLS[it.tag]) for it in controls
        ),
        labels=_common_labels(controls),
        region_control=_region_control(elements, image.get("name", ""), region_label),
        region_label=region_label,
        xml=xml,
    )


def label_name(label: Element) -> str:
    """What stands in results for a label: its alias where it has one."""
    return label.get("alias") or label.get("value") or ""


def parse_xml(xml: str) -> Element:
    """The root of a labelling interface, its tags as they are usually written.

    Raises:
        LabelConfigError: if it is no well-formed XML, or far larger than any interface.
    """
    if len(xml) > MAX_CHARACTERS:
        raise LabelConfigError(
            f"the label config has {len(xml)} characters, at most {MAX_CHARACTERS} are read"
        )
    try:
        root: Element = fromstring(xml, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise LabelConfigError(f"the label config is no well-formed XML: {error}") from None
    if _depth(root) > MAX_DEPTH:
        raise LabelConfigError(f"the label config is nested deeper than {MAX_DEPTH} levels")
    for element in root.iter():
        element.tag = _TAGS.get(element.tag.lower(), element.tag)
    return root


def offered(element: Element) -> Iterator[Element]:
    """It and all below it, in order, but for controls that are kept for old annotations alone."""
    if KEPT_CLASS not in element.get("className", "").split():
        yield element
        for child in element:
            yield from offered(child)


def _depth(root: Element) -> int:
    level, depth = [root], 0
    while level and depth <= MAX_DEPTH:
        level = [child for element in level for child in element]
        depth += 1
    return depth


def _refuse_tags(elements: Sequence[Element]) -> None:
    for element in elements:
        if element.tag in REFUSED_TAGS:
            raise LabelConfigError(
                f"the label config has a {element.tag}: {REFUSED_TAGS[element.tag]}"
            )


def _segmentation_controls(elements: Sequence[Element]) -> list[Element]:
    """Those there are, in their order; each has a name."""
    controls = [element for element in elements if element.tag in SEGMENTATION_CONTROLS]
    if not controls:
        others = [tag for tag in _NO_MASKS if any(it.tag == tag for it in elements)]
        found = f"; {' and '.join(others)} cannot stand in for it" if others else ""
        raise LabelConfigError(
            f"the label config has no {', '.join(SEGMENTATION_CONTROLS)} control{found}; add for "
            f"example {_EXAMPLE}"
        )
    for control in controls:
        if not control.get("name"):
            raise LabelConfigError(f'the {control.tag} control has no name; add name="brush"')
        if control.get("value"):
            raise LabelConfigError(
                f"{shown_control(control)} takes its labels from each task "
                f"(value={control.get('value')!r}); a network learns one set of labels: write each "
                'as <Label value="road"/>'
            )
    return controls


def shown_control(control: Element) -> str:
    """A control for messages."""
    return f"{control.tag} {control.get('name')!r}"


def _image(elements: Sequence[Element], controls: Sequence[Element]) -> Element:
    """The one Image that all the controls belong to."""
    images = {it.get("name", ""): it for it in elements if it.tag == "Image"}
    names: dict[str, Element] = {}
    for control in controls:
        targets = [name.strip() for name in control.get("toName", "").split(",") if name.strip()]
        if len(targets) != 1:
            raise LabelConfigError(
                f"{shown_control(control)} belongs to {len(targets)} images "
                f"({', '.join(targets) or 'none'}); toName must name exactly one Image"
            )
        if targets[0] not in images:
            raise LabelConfigError(
                f"{shown_control(control)} has toName={targets[0]!r}, but the images are "
                f"{', '.join(sorted(images)) or 'none'}; name one of them"
            )
        names.setdefault(targets[0], control)
    if len(names) > 1:
        placed = ", ".join(f"{shown_control(it)} on Image {name!r}" for name, it in names.items())
        raise LabelConfigError(
            f"the label config labels {len(names)} images: {placed}; {_ONE_IMAGE}"
        )
    return images[next(iter(names))]


def _common_labels(controls: Sequence[Element]) -> tuple[ClassLabel, ...]:
    """The labels of all controls, as the first has them.

    Raises:
        LabelConfigError: if one has others than the first.
    """
    first, *others = controls
    labels = _labels(first)
    names = {label.name for label in labels}
    for other in others:
        differing = names ^ {label.name for label in _labels(other)}
        if differing:
            raise LabelConfigError(
                f"{shown_control(first)} and {shown_control(other)} differ in the labels "
                f"{', '.join(sorted(differing))}; their masks are put together: give both the "
                "same labels, or keep one of them"
            )
    return labels


def _data_key(image: Element) -> str:
    value = image.get("value", "")
    if image.get("valueList"):
        raise LabelConfigError(
            f'Image {image.get("name")!r} shows a list of images (valueList); use value="$image" '
            "with one image per task"
        )
    if not _KEY.fullmatch(value):
        raise LabelConfigError(
            f"Image {image.get('name')!r} has value={value!r}, expected one key of the task's data "
            'that holds the image, not nested in others, for example value="$image"'
        )
    return value[1:]


def _labels(control: Element) -> tuple[ClassLabel, ...]:
    found = [element for element in control.iter("Label")]
    names = [label_name(element) for element in found]
    if not found or not all(names):
        raise LabelConfigError(
            f"{shown_control(control)} needs at least one Label, each with a value, "
            'for example <Label value="road"/>'
        )
    dynamic = [value for it in found if (value := it.get("value", "")).startswith("$")]
    if dynamic:
        raise LabelConfigError(
            f"{shown_control(control)} takes the label {dynamic[0]!r} from each task; a network "
            "learns one set of labels: write its name"
        )
    if len(names) > VOID:
        raise LabelConfigError(
            f"{shown_control(control)} has {len(names)} labels, at most {VOID} fit a mask of 8 bits"
        )
    if longest := max((name for name in names if len(name) > MAX_NAME), key=len, default=""):
        raise LabelConfigError(
            f"{shown_control(control)} has a label of {len(longest)} characters, at "
            f"most {MAX_NAME} are possible: {longest[:40]}…"
        )
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise LabelConfigError(
            f"{shown_control(control)} has the label {', '.join(twice)} twice; labels "
            "(and aliases) must differ"
        )
    return tuple(
        ClassLabel(name, plain_color(element.get("background", ""), position))
        for position, (name, element) in enumerate(zip(names, found, strict=True))
    )


def plain_color(value: str, position: int) -> str:
    """`#RRGGBB` of a CSS colour, without its transparency.

    One that is missing or unknown becomes the palette's at `position`.
    """
    try:
        channels = ImageColor.getrgb(_ALPHA.sub(r"\1(\2)", value.strip()))[:3]
    except ValueError:
        return hexadecimal(distinct_color(position))
    return hexadecimal([min(channel, 255) for channel in channels])


def _region_control(elements: Sequence[Element], image_name: str, region_label: str) -> str | None:
    for element in elements:
        if element.tag == "RectangleLabels" and element.get("toName", "").strip() == image_name:
            values = {label_name(it) for it in element.iter("Label")}
            if region_label in values and element.get("name"):
                return element.get("name")
    return None
