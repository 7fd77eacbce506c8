"""Label Studio's labelling interface (XML) -> the labels of the one segmentation control in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from xml.etree.ElementTree import Element, ParseError, SubElement, indent, tostring

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from PIL import ImageColor

from ralis_backend.core.palette import distinct_color, hexadecimal
from ralis_backend.core.regions import VOID
from ralis_backend.labelstudio.payloads.answers import Question, questions
from ralis_backend.online.tool import ClassLabel

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 100
MAX_NAME = 500
"""Characters of a label's name."""
SEGMENTATION_CONTROLS = {"BrushLabels": "brushlabels", "PolygonLabels": "polygonlabels"}
REGION_LABEL = "Suggested region"
REGION_COLOR = "#FF00FF"

TOOL_HOTKEYS = "behkmoprvwu"
"""Keys of Label Studio's tools, and of "unselect"."""
# What gets no key here gets the next free one, and the eraser would tick a choice.
_LABEL_HOTKEYS = "123456789qtasdfgzxcyijl"
_COLUMNS = "display:grid;grid-template-columns:minmax(0,2fr) minmax(0,1fr);gap:16px"
# Label Studio shows every brush mask at an opacity of 0.6, whatever the config says, which hides
# the pixels. The context is looked at, not worked on: tools of its own would stand in the way.
_STYLE = """
.ralis-crop canvas[style*="opacity: 0.6"] { opacity: 0.4 !important }
.ralis-context .lsf-toolbar { display: none }
"""
# Pixels on the screen of 1600 x 950: the right column's width; all but the labels, the context and
# the questions; one of these.
_COLUMN_WIDTH, _OTHER_HEIGHT, _QUESTION_HEIGHT = 360, 210, 40
KEYS = {
    "brushlabels": "Esc before another label · [ ] brush size · E eraser, B brush · "
    "Ctrl+Enter submits",
    "polygonlabels": "Esc before another label · Ctrl+Z undoes · Ctrl+Enter submits",
}
"""What annotators have to know at every region, by the type of what they draw."""
_KEYS_HEIGHT = 50
_INLINE_CHOICES = 4
"""More of them stand in a list that opens."""


class LabelConfigError(ValueError):
    """A labelling interface that this backend cannot serve; the message says what to change."""


@dataclass(frozen=True)
class LabelConfig:
    """What the backend needs of a labelling interface.

    image_name, image_key: the Image tag, and the key of a task's data that it shows.
    control_name, control_type: the segmentation control; `brushlabels` or `polygonlabels`.
    labels: names as they stand in results (a label's alias where it has one), and colours.
    region_control, region_label: the RectangleLabels control for suggested regions, if any.
    """

    image_name: str
    image_key: str
    control_name: str
    control_type: str
    labels: tuple[ClassLabel, ...]
    region_control: str | None
    region_label: str


def parse_label_config(xml: str, region_label: str = REGION_LABEL) -> LabelConfig:
    """The one segmentation control of a labelling interface, its image and its labels.

    Args:
        xml: the project's label config; views may be nested. It comes with every request and is
            remembered.
        region_label: names the rectangles of suggested regions.

    Raises:
        LabelConfigError: if it is no XML, or there is not exactly one BrushLabels or
            PolygonLabels control with at least one label on exactly one Image.
    """
    if not isinstance(xml, str):
        raise LabelConfigError(f"the label config is a {type(xml).__name__}, expected XML text")
    return _label_config(xml, region_label)


@lru_cache(maxsize=64)
def _label_config(xml: str, region_label: str) -> LabelConfig:
    elements = list(_parse(xml).iter())
    control = _segmentation_control(elements)
    image = _image(elements, control)
    return LabelConfig(
        image_name=image.get("name", ""),
        image_key=_data_key(image),
        control_name=control.get("name", ""),
        control_type=SEGMENTATION_CONTROLS[control.tag],
        labels=_labels(control),
        region_control=_region_control(elements, image.get("name", ""), region_label),
        region_label=region_label,
    )


def regions_config(config: LabelConfig, background: str | None = None) -> str:
    """The labelling interface of the regions project: a crop, its context, the same labels.

    Everything fits one screen of 1600 x 950: the crop takes the left two thirds as high as the
    window allows, whatever the number of labels; at its right, next to the brush, stand the
    labels, then the context, then the questions.

    Args:
        config: of the pool project.
        background: the class that unpainted pixels get, None where they say nothing.
    """
    asked = _questions(config, background)
    other_height = (
        _OTHER_HEIGHT
        + _KEYS_HEIGHT
        + _labels_height(config)
        + sum(map(_question_height, asked.values()))
    )
    root = Element("View")
    SubElement(root, "Header", {"value": "$note", "size": "5"})
    columns = SubElement(root, "View", {"style": _COLUMNS})
    taken = {config.control_name, config.image_name}
    context_name = _free_name("context", taken)
    SubElement(
        SubElement(columns, "View", {"className": "ralis-crop"}),
        "Image",
        {
            "name": config.image_name,
            "value": "$image",
            "zoom": "true",
            "zoomControl": "true",
            "rotateControl": "false",
            "smoothing": "true",
            "maxWidth": "100%",
        },
    )
    right = SubElement(columns, "View")
    _add_labels(right, config)
    SubElement(right, "Header", {"value": KEYS[config.control_type], "size": "6"})
    SubElement(root, "Style").text = _STYLE
    SubElement(
        SubElement(right, "View", {"className": "ralis-context"}),
        "Image",
        {
            "name": context_name,
            "value": "$context",
            "maxWidth": "100%",
            "maxHeight": f"calc(100vh - {other_height}px)",
            "zoom": "false",
            "zoomControl": "false",
            "rotateControl": "false",
        },
    )
    _add_questions(right, asked, config.image_name, {*taken, context_name})
    indent(root)
    return tostring(root, encoding="unicode")


def asks_everything(xml: str, config: LabelConfig, background: str | None = None) -> bool:
    """Whether an interface of regions asks every question, in the words of today."""
    root = _parse(xml)
    shown = {it.get("value") for tag in ("Choice", "Header") for it in root.iter(tag)}
    return KEYS[config.control_type] in shown and all(
        text in shown
        for question in _questions(config, background).values()
        for text in (*filter(None, [question.title]), *(it.text for it in question.choices))
    )


def _questions(config: LabelConfig, background: str | None) -> dict[str, Question]:
    """Those that have a choice in this project."""
    asked = questions([label.name for label in config.labels], background)
    return {control: question for control, question in asked.items() if question.choices}


def _question_height(question: Question) -> int:
    return _QUESTION_HEIGHT * (2 if question.title else 1)


def _add_labels(parent: Element, config: LabelConfig) -> None:
    tag = next(tag for tag, kind in SEGMENTATION_CONTROLS.items() if kind == config.control_type)
    style = {"opacity": "0.4"} if tag == "BrushLabels" else {"strokeWidth": "2", "opacity": "0.3"}
    control = SubElement(
        parent, tag, {"name": config.control_name, "toName": config.image_name, **style}
    )
    of_questions = {choice.hotkey for it in questions().values() for choice in it.choices}
    hotkeys = [key for key in _LABEL_HOTKEYS if key not in of_questions]
    for position, label in enumerate(config.labels):
        attributes = {"value": label.name, "background": label.color}
        if position < len(hotkeys):
            attributes["hotkey"] = hotkeys[position]
        SubElement(control, "Label", attributes)


def _add_questions(
    parent: Element, asked: Mapping[str, Question], image_name: str, taken: set[str]
) -> None:
    for control, question in asked.items():
        name = _free_name(control, taken)
        taken.add(name)
        if question.title:
            SubElement(parent, "Header", {"value": question.title, "size": "6"})
        attributes = {"choice": "single", "showInline": "true"}
        if len(question.choices) > _INLINE_CHOICES:
            attributes = {"choice": "single", "layout": "select"}
        element = SubElement(parent, "Choices", {"name": name, "toName": image_name, **attributes})
        for choice in question.choices:
            hotkey = {"hotkey": choice.hotkey} if choice.hotkey else {}
            SubElement(element, "Choice", {"value": choice.text, **hotkey})


def _labels_height(config: LabelConfig) -> int:
    """About how many pixels high the labels stand in the right column, row below row."""
    width = sum(50 + 8 * len(label.name) for label in config.labels)
    return 34 * -(-width // _COLUMN_WIDTH)


def _free_name(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _parse(xml: str) -> Element:
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
    return root


def _depth(root: Element) -> int:
    level, depth = [root], 0
    while level and depth <= MAX_DEPTH:
        level = [child for element in level for child in element]
        depth += 1
    return depth


def _segmentation_control(elements: list[Element]) -> Element:
    controls = [element for element in elements if element.tag in SEGMENTATION_CONTROLS]
    if len(controls) == 1:
        return controls[0]
    if controls:
        names = ", ".join(f"{it.tag} {it.get('name', '')!r}" for it in controls)
        raise LabelConfigError(
            f"the label config has {len(controls)} segmentation controls: {names}; the backend "
            "learns one set of labels: keep one BrushLabels or PolygonLabels control"
        )
    raise LabelConfigError(
        "the label config has no BrushLabels or PolygonLabels control; add for example "
        '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
        '<Label value="road"/><Label value="car"/></BrushLabels></View>'
    )


def _image(elements: list[Element], control: Element) -> Element:
    targets = [name.strip() for name in control.get("toName", "").split(",") if name.strip()]
    images = {it.get("name", ""): it for it in elements if it.tag == "Image"}
    if not control.get("name"):
        raise LabelConfigError(f'the {control.tag} control has no name; add name="brush"')
    if len(targets) != 1:
        raise LabelConfigError(
            f"{control.tag} {control.get('name')!r} belongs to {len(targets)} images "
            f"({', '.join(targets) or 'none'}); toName must name exactly one Image"
        )
    if targets[0] not in images:
        raise LabelConfigError(
            f"{control.tag} {control.get('name')!r} has toName={targets[0]!r}, but the images are "
            f"{', '.join(sorted(images)) or 'none'}; name one of them"
        )
    return images[targets[0]]


def _data_key(image: Element) -> str:
    value = image.get("value", "")
    if image.get("valueList"):
        raise LabelConfigError(
            f'Image {image.get("name")!r} shows a list of images (valueList); use value="$image" '
            "with one image per task"
        )
    if not value.startswith("$") or len(value) < 2:
        raise LabelConfigError(
            f"Image {image.get('name')!r} has value={value!r}, expected the key of the task's "
            'image, for example value="$image"'
        )
    return value[1:]


def _labels(control: Element) -> tuple[ClassLabel, ...]:
    found = [element for element in control.iter("Label")]
    names = [element.get("alias") or element.get("value") or "" for element in found]
    if not found or not all(names):
        raise LabelConfigError(
            f"{control.tag} {control.get('name')!r} needs at least one Label, each with a value, "
            'for example <Label value="road"/>'
        )
    if len(names) > VOID:
        raise LabelConfigError(
            f"{control.tag} {control.get('name')!r} has {len(names)} labels, at most {VOID} fit a "
            "mask of 8 bits"
        )
    if longest := max((name for name in names if len(name) > MAX_NAME), key=len, default=""):
        raise LabelConfigError(
            f"{control.tag} {control.get('name')!r} has a label of {len(longest)} characters, at "
            f"most {MAX_NAME} are possible: {longest[:40]}…"
        )
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise LabelConfigError(
            f"{control.tag} {control.get('name')!r} has the label {', '.join(twice)} twice; labels "
            "(and aliases) must differ"
        )
    return tuple(
        ClassLabel(name, _color(element.get("background", ""), position))
        for position, (name, element) in enumerate(zip(names, found, strict=True))
    )


def _color(value: str, position: int) -> str:
    """`#RRGGBB` of a CSS colour; one that is missing or unknown becomes one of the palette's."""
    try:
        channels = ImageColor.getrgb(value.strip())[:3]
    except ValueError:
        return hexadecimal(distinct_color(position))
    return hexadecimal([min(channel, 255) for channel in channels])


def _region_control(elements: list[Element], image_name: str, region_label: str) -> str | None:
    for element in elements:
        if element.tag == "RectangleLabels" and element.get("toName", "").strip() == image_name:
            values = {it.get("alias") or it.get("value") for it in element.iter("Label")}
            if region_label in values and element.get("name"):
                return element.get("name")
    return None
