"""The pool's labelling interface -> that of its regions project: a crop, its context, its tools.

Labels, helpers and the look of the image are the owner's; what needs a key of the pool's tasks is
left out, since the tasks of regions do not have it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from ralis_backend.labelstudio.payloads.answers import Question, questions
from ralis_backend.labelstudio.payloads.hotkeys import Hotkeys, hotkey
from ralis_backend.labelstudio.payloads.label_config import (
    HELPERS,
    KEPT_CLASS,
    SEGMENTATION_CONTROLS,
    LabelConfig,
    LabelConfigError,
    label_name,
    offered,
    parse_label_config,
    parse_xml,
    plain_color,
)

logger = logging.getLogger(__name__)

CROP_CLASS = "ralis-crop"
"""Of the view that shows the crop: by it an interface of regions is known."""
REGIONS_SIGN = f'a view with the class "{CROP_CLASS}"'
_COLUMNS = "display:grid;grid-template-columns:minmax(0,2fr) minmax(0,1fr);gap:32px"
# Label Studio shows every brush mask at an opacity of 0.6, whatever the config says, which hides
# the pixels; an outline, light and dark, is seen on any picture in any colour. The slider of the
# brush's size would cover a corner of the crop, where no stroke begins then. The context is looked
# at, not worked on: tools of its own would stand in the way.
_STYLE = """
.ralis-crop canvas[style*="opacity: 0.6"] { opacity: 0.4 !important;
  filter: drop-shadow(1px 1px 0 #fff) drop-shadow(-1px -1px 0 #000) }
.ralis-small * { font-size: 14px !important; margin: 4px 0 !important }
.ralis-crop .lsf-toolbar { transform: translateX(12px) }
.ralis-crop .lsf-tool__controls { padding-right: 4px !important }
.ralis-context .lsf-toolbar { display: none }
"""
# Pixels on the screen of 1600 x 950: the right column's width; all but the labels, the context and
# the questions; one of these.
_COLUMN_WIDTH, _OTHER_HEIGHT, _QUESTION_HEIGHT = 360, 210, 40
KEYS = {
    "brushlabels": "[ ] brush size · E eraser, B brush · Ctrl+Enter submits",
    "bitmasklabels": "[ ] brush size · Ctrl+Enter submits",
    "polygonlabels": "Ctrl held draws over a suggestion · Ctrl+Z undoes · Ctrl+Enter submits",
}
"""What annotators have to know at every region, by the type of what they draw."""
WAND_KEYS = "W magic wand: drag first, then choose the label"
"""Label Studio lets go of the label when the wand is taken up, and of the wand for a label."""
_KEYS_HEIGHT = 40
SHOWN_VALUE = "Value"
"""Stands behind `value`. The page reads attributes in any case, and the last one counts; the server
sees the first alone, and stores files only for a project with one data key. So the crops lie in the
project that shows them."""
_INLINE_CHOICES = 4
"""More of them stand in a list that opens."""

SMART_HELPERS = frozenset({"KeyPointLabels", "RectangleLabels", "EllipseLabels"})
"""Carried where they are smart: a model of the owner answers them with a mask."""

# Label Studio reads attributes in any case, so they are compared in lower case.
_IMAGE_ATTRIBUTES = frozenset(
    {
        "zoom",
        "negativezoom",
        "zoomby",
        "defaultzoom",
        "zoomcontrol",
        "grid",
        "gridsize",
        "gridcolor",
        "brightnesscontrol",
        "contrastcontrol",
        "rotatecontrol",
        "crosshair",
        "selectioncontrol",
        "horizontalalignment",
        "verticalalignment",
        "crossorigin",
        "smoothing",
    }
)
_CONTROL_ATTRIBUTES = frozenset(
    {
        "smart",
        "opacity",
        "fillopacity",
        "fillcolor",
        "strokewidth",
        "strokecolor",
        "pointsize",
        "pointstyle",
        "snap",
        "snappoint",
        "showinline",
        "canrotate",
        "blurradius",
        "defaultthreshold",
    }
)
_LABEL_ATTRIBUTES = frozenset(
    {"value", "alias", "hotkey", "hint", "showalias", "aliasstyle", "size"}
)
# Nobody can answer what is out of sight: `required` would let no region be submitted any more.
_KEPT_ATTRIBUTES = frozenset({"name", "toname", "value", "alias", "background", "choice"})
_OUR_IMAGE = {
    "zoom": "true",
    "zoomControl": "true",
    "rotateControl": "false",
    "smoothing": "true",
    "maxWidth": "100%",
}
_OUR_CONTROL = {
    "BrushLabels": {"opacity": "0.4"},
    "PolygonLabels": {"strokeWidth": "2", "opacity": "0.3"},
}


def regions_config(
    config: LabelConfig, background: str | None = None, before: str | None = None
) -> str:
    """The labelling interface of the regions project: a crop, its context, the same labels.

    Everything fits one screen of 1600 x 950: the crop takes the left two thirds as high as the
    window allows, whatever the number of labels; at its right, next to the brush, stand the
    labels, then the context, then the questions.

    Args:
        config: of the pool project.
        background: the class that unpainted pixels get, None where they say nothing.
        before: the interface so far, of which annotations use controls that are gone: those stay,
            hidden, since Label Studio takes no interface without them.
    """
    asked = _questions(config, background)
    image, tools = _image_and_tools(config)
    keys = Hotkeys(element for tool in tools for element in tool.iter())
    root = Element("View")
    SubElement(root, "Header", {"value": "$note", "size": "5"})
    columns = SubElement(root, "View", {"style": _COLUMNS})
    crop = SubElement(columns, "View", {"className": CROP_CLASS})
    shown = {"name": config.image_name, "value": "$image"}
    SubElement(crop, "Image", shown | _merged(_OUR_IMAGE, _carried(image, _IMAGE_ATTRIBUTES)))
    right = SubElement(columns, "View")
    for tool in tools:
        _add_tool(right, tool, config, keys)
    _add_small(right, _keys_shown(config, tools))
    SubElement(root, "Style").text = _STYLE
    taken = {config.image_name, *(tool.get("name", "") for tool in tools)}
    context_name = _free_name("context", taken)
    other_height = (
        _OTHER_HEIGHT
        + _KEYS_HEIGHT
        + _labels_height(tools)
        + sum(map(_question_height, asked.values()))
    )
    SubElement(
        SubElement(right, "View", {"className": "ralis-context"}),
        "Image",
        {
            "name": context_name,
            "value": "$image",
            SHOWN_VALUE: "$context",
            "maxWidth": "100%",
            "maxHeight": f"calc(100vh - {other_height}px)",
            "zoom": "false",
            "zoomControl": "false",
            "rotateControl": "false",
        },
    )
    _add_questions(right, asked, config.image_name, {*taken, context_name}, keys)
    if before is not None:
        _add_kept(root, before, config, keys)
    indent(root)
    return tostring(root, encoding="unicode")


def carried_parts(config: LabelConfig) -> frozenset[tuple[str, ...]]:
    """What of an owner's interface stands in that of the regions project, to be compared."""
    image, tools = _image_and_tools(config)
    parts: set[tuple[str, ...]] = set()
    parts |= {("image", *it) for it in _lower(_carried(image, _IMAGE_ATTRIBUTES))}
    for tool in tools:
        name = tool.get("name", "")
        parts.add((tool.tag, name))
        parts |= {(name, *it) for it in _lower(_carried(tool, _CONTROL_ATTRIBUTES))}
        for label in tool.iter("Label"):
            attributes = _lower(_carried(label, _LABEL_ATTRIBUTES))
            parts |= {(name, label_name(label), *it) for it in attributes}
    return frozenset(parts)


def carried_tags(config: LabelConfig) -> list[tuple[str, str]]:
    """Tag and name of the owner's elements that the regions project gets: the image, its tools."""
    image, tools = _image_and_tools(config)
    return [(it.tag, it.get("name", "")) for it in (image, *tools)]


def is_like(xml: str, pool: LabelConfig, background: str | None = None) -> bool:
    """Whether an interface of regions has all that is the pool's; its layout is anybody's."""
    try:
        shown = parse_label_config(xml, pool.region_label)
    except LabelConfigError as error:
        logger.warning("the interface of a regions project is written anew: %s", error)
        return False
    same_labels = shown.labels == pool.labels and shown.controls == pool.controls
    has_all = carried_parts(shown) >= carried_parts(pool)
    return same_labels and has_all and stores_files(xml) and asks_everything(xml, pool, background)


def shows_regions(xml: str) -> bool:
    """Whether an interface is one that `regions_config` made; False for what cannot be read."""
    try:
        elements = parse_xml(xml).iter()
    except LabelConfigError:
        return False
    return any(CROP_CLASS in element.get("className", "").split() for element in elements)


def stores_files(xml: str) -> bool:
    """Whether Label Studio stores files for a project with this interface: it has one data key."""
    named = [it for it in parse_xml(xml).iter() if it.get("name")]
    return len({value for it in named if (value := it.get("value", "")).startswith("$")}) == 1


def asks_everything(xml: str, config: LabelConfig, background: str | None = None) -> bool:
    """Whether an interface of regions asks every question, in the words of today."""
    shown = {it.get("value") for it in offered(parse_xml(xml)) if it.tag in ("Choice", "Header")}
    return _keys_shown(config, _image_and_tools(config)[1]) in shown and all(
        text in shown
        for question in _questions(config, background).values()
        for text in (*filter(None, [question.title]), *(it.text for it in question.choices))
    )


def _questions(config: LabelConfig, background: str | None) -> dict[str, Question]:
    """Those that have a choice in this project."""
    asked = questions([label.name for label in config.labels], background)
    return {control: question for control, question in asked.items() if question.choices}


def _keys_shown(config: LabelConfig, tools: Iterable[Element]) -> str:
    keys = [KEYS[config.control_type]]
    if len(config.labels) > 1:
        keys.insert(0, "Esc before another label")
    if any(tool.tag == "MagicWand" for tool in tools):
        keys.append(WAND_KEYS)
    return " · ".join(keys)


def _question_height(question: Question) -> int:
    return _QUESTION_HEIGHT * (2 if question.title else 1)


def _image_and_tools(config: LabelConfig) -> tuple[Element, list[Element]]:
    """The owner's Image, and the controls of it that a region is painted with, in order."""
    elements = list(offered(parse_xml(config.xml)))
    image = next(it for it in elements if it.tag == "Image" and it.get("name") == config.image_name)
    of_image = [it for it in elements if it.get("toName", "").strip() == config.image_name]
    return image, [it for it in of_image if it.get("name") and _is_painted_with(it, config)]


def _is_painted_with(element: Element, config: LabelConfig) -> bool:
    if element.tag in SEGMENTATION_CONTROLS or element.tag in HELPERS:
        return True
    is_smart = any(it == ("smart", "true") for it in _lower(element.attrib))
    is_fixed = not element.get("value") and element.get("name") != config.region_control
    return element.tag in SMART_HELPERS and is_smart and is_fixed


def _add_tool(parent: Element, tool: Element, config: LabelConfig, keys: Hotkeys) -> None:
    named = {"name": tool.get("name", ""), "toName": config.image_name}
    style = _merged(_OUR_CONTROL.get(tool.tag, {}), _carried(tool, _CONTROL_ATTRIBUTES))
    control = SubElement(parent, tool.tag, named | style)
    colors = {label.name: label.color for label in config.labels}
    for position, label in enumerate(tool.iter("Label")):
        attributes = _carried(label, _LABEL_ATTRIBUTES)
        background = label.get("background", "")
        color = colors.get(label_name(label)) or plain_color(background, position)
        attributes["background"] = color
        if not hotkey(label):
            attributes["hotkey"] = keys.for_label()
        SubElement(control, "Label", attributes)


def _add_questions(
    parent: Element, asked: Mapping[str, Question], image_name: str, taken: set[str], keys: Hotkeys
) -> None:
    for control, question in asked.items():
        name = _free_name(control, taken)
        taken.add(name)
        if question.title:
            _add_small(parent, question.title)
        attributes = {"choice": "single", "showInline": "true"}
        if len(question.choices) > _INLINE_CHOICES:
            attributes = {"choice": "single", "layout": "select"}
        element = SubElement(parent, "Choices", {"name": name, "toName": image_name, **attributes})
        for choice in question.choices:
            key = keys.for_choice(choice.hotkey)
            SubElement(element, "Choice", {"value": choice.text, "hotkey": key})


def _add_kept(root: Element, before: str, config: LabelConfig, keys: Hotkeys) -> None:
    """Controls of another interface, as far as their names are free: out of sight.

    Of two tools that listen to one key Label Studio takes that of the control which comes last, so
    that those in use come after the kept ones, and kept ones of their type after the others. Kept
    controls have the labels of today as well: a class that comes back has its name and colour.
    """
    names = {it.get("name") for it in root.iter()}
    tags = {it.tag for it in root.iter() if it.get("toName")}
    view = Element("View", {"className": KEPT_CLASS, "style": "display:none"})
    gone = [
        deepcopy(control)
        for control in parse_xml(before).iter()
        if control.get("toName") and control.get("name") not in names
    ]
    for control in sorted(gone, key=lambda it: it.tag in tags):
        known = {label_name(label) for label in control.iter("Label")}
        if control.tag in SEGMENTATION_CONTROLS:
            for label in config.labels:
                if label.name not in known:
                    SubElement(control, "Label", {"value": label.name, "background": label.color})
        for element in control.iter():
            for name in [it for it in element.attrib if it.lower() not in _KEPT_ATTRIBUTES]:
                del element.attrib[name]
            if element.tag in ("Label", "Choice"):
                element.set("hotkey", keys.far())
        view.append(control)
    if gone:
        root.insert(0, view)


def _add_small(parent: Element, text: str) -> None:
    """A line of text; a Header alone would be larger than the labels."""
    view = SubElement(parent, "View", {"className": "ralis-small"})
    SubElement(view, "Header", {"value": text, "size": "6"})


def _carried(element: Element, names: frozenset[str]) -> dict[str, str]:
    """The owner's attributes of these names; not what is filled in from the pool's tasks."""
    return {
        name: value
        for name, value in element.attrib.items()
        if name.lower() in names and value and not value.startswith("$")
    }


def _merged(ours: Mapping[str, str], owners: Mapping[str, str]) -> dict[str, str]:
    chosen = {name.lower() for name in owners}
    return {name: value for name, value in ours.items() if name.lower() not in chosen} | dict(
        owners
    )


def _lower(attributes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((name.lower(), value) for name, value in attributes.items())


def _labels_height(tools: Iterable[Element]) -> int:
    """About how many pixels high the labels stand in the right column, row below row."""
    widths = [
        sum(50 + 8 * len(label.get("value", "")) for label in tool.iter("Label")) for tool in tools
    ]
    return sum(34 * -(-width // _COLUMN_WIDTH) for width in widths)


def _free_name(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
