from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

import pytest

from ralis_backend.core.palette import distinct_color, hexadecimal
from ralis_backend.labelstudio.payloads import label_config
from ralis_backend.labelstudio.payloads.label_config import (
    MAX_CHARACTERS,
    Control,
    LabelConfig,
    LabelConfigError,
    parse_label_config,
)
from ralis_backend.online.tool import ClassLabel

LABELS = '<Label value="road" background="#804080"/><Label value="car" background="#0000ff"/>'
IMAGE = '<Image name="image" value="$image"/>'
BRUSH = f'<BrushLabels name="brush" toName="image">{LABELS}</BrushLabels>'


def _config(*parts: str) -> str:
    return f"<View>{''.join(parts)}</View>"


def _brush(labels: str) -> str:
    return _config(IMAGE, f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels>')


def test_a_brush_config_is_read_whole():
    assert parse_label_config(_config(IMAGE, BRUSH)) == LabelConfig(
        image_name="image",
        image_key="image",
        controls=(Control("brush", "brushlabels"),),
        labels=(ClassLabel("road", "#804080"), ClassLabel("car", "#0000FF")),
        region_control=None,
        region_label="Suggested region",
    )


def test_polygons_in_nested_views_under_other_names_are_found():
    config = parse_label_config(
        '<View><View style="display:flex"><View><Image name="photo" value="$url"/></View>'
        '<View><PolygonLabels name="shape" toName="photo"><View><Label value="road"/></View>'
        "</PolygonLabels></View></View></View>"
    )
    assert (config.image_name, config.image_key) == ("photo", "url")
    assert (config.control_name, config.control_type) == ("shape", "polygonlabels")
    assert [label.name for label in config.labels] == ["road"]


def test_an_alias_is_the_name_that_stands_in_results():
    config = parse_label_config(_brush('<Label value="Street and road" alias="road"/>'))
    assert [label.name for label in config.labels] == ["road"]


def test_names_with_entities_and_other_scripts_are_kept():
    labels = '<Label value="B&amp;W"/><Label value="車"/><Label value="&lt;none&gt;"/>'
    config = parse_label_config(_brush(labels))
    assert [label.name for label in config.labels] == ["B&W", "車", "<none>"]


@pytest.mark.parametrize(
    ("background", "color"),
    [
        ("#804080", "#804080"),
        ("#abcdef", "#ABCDEF"),
        ("#0f8", "#00FF88"),
        ("#11223344", "#112233"),
        ("red", "#FF0000"),
        ("DarkOliveGreen", "#556B2F"),
        (" teal ", "#008080"),
        ("rgb(1, 2, 3)", "#010203"),
        ("rgb(999, 2, 3)", "#FF0203"),
        ("rgba(128, 64, 128, 0.7)", "#804080"),
        (" RGBA(1,2,3,.5) ", "#010203"),
        ("hsla(120, 100%, 50%, 0.3)", "#00FF00"),
        ("#f00a", "#FF0000"),
    ],
)
def test_a_colour_is_the_one_that_the_browser_shows(background, color):
    config = parse_label_config(_brush(f'<Label value="a" background="{background}"/>'))
    assert config.labels[0].color == color


@pytest.mark.parametrize("background", ["", "no-such-colour", "#12", "rgba()", "x" * 200])
def test_a_missing_or_unknown_colour_becomes_one_of_the_palette(background):
    labels = "".join(f'<Label value="{name}" background="{background}"/>' for name in "abc")
    config = parse_label_config(_brush(labels))
    assert [it.color for it in config.labels] == [hexadecimal(distinct_color(i)) for i in range(3)]


def test_rectangles_for_suggested_regions_are_found_by_their_label():
    other = '<RectangleLabels name="box" toName="image"><Label value="car"/></RectangleLabels>'
    region = (
        '<View><RectangleLabels name="region" toName="image"><Label value="Suggested region"/>'
        "</RectangleLabels></View>"
    )
    assert parse_label_config(_config(IMAGE, other, BRUSH)).region_control is None
    assert parse_label_config(_config(IMAGE, other, region, BRUSH)).region_control == "region"
    named = parse_label_config(_config(IMAGE, other, BRUSH), region_label="car")
    assert (named.region_control, named.region_label) == ("box", "car")


def test_rectangles_on_another_image_are_not_those_of_suggested_regions():
    region = (
        '<RectangleLabels name="region" toName="other"><Label value="Suggested region"/>'
        '</RectangleLabels><Image name="other" value="$other"/>'
    )
    assert parse_label_config(_config(IMAGE, region, BRUSH)).region_control is None


def test_a_second_image_that_no_segmentation_control_uses_is_no_matter():
    config = _config('<Image name="context" value="$context"/>', IMAGE, BRUSH)
    assert parse_label_config(config).image_key == "image"


POLYGONS = f'<PolygonLabels name="shape" toName="image">{LABELS}</PolygonLabels>'
BITMASKS = f'<BitmaskLabels name="bits" toName="image">{LABELS}</BitmaskLabels>'


@pytest.mark.parametrize(
    ("controls", "names", "written"),
    [
        ((POLYGONS, BRUSH), ("shape", "brush"), ("brush", "brushlabels")),
        ((POLYGONS, BITMASKS), ("shape", "bits"), ("bits", "bitmasklabels")),
        ((BITMASKS,), ("bits",), ("bits", "bitmasklabels")),
        ((BITMASKS, BRUSH, POLYGONS), ("bits", "brush", "shape"), ("brush", "brushlabels")),
    ],
)
def test_controls_with_the_same_labels_are_put_together(controls, names, written):
    config = parse_label_config(_config(IMAGE, *controls))
    assert tuple(it.name for it in config.controls) == names
    assert (config.control_name, config.control_type) == written
    assert [label.name for label in config.labels] == ["road", "car"]


def test_the_same_labels_in_another_order_or_by_an_alias_are_the_same():
    other = '<Label value="Car!" alias="car"/><Label value="road"/>'
    polygons = f'<PolygonLabels name="shape" toName="image">{other}</PolygonLabels>'
    config = parse_label_config(_config(IMAGE, BRUSH, polygons))
    assert [label.name for label in config.labels] == ["road", "car"]


def test_controls_with_different_labels_are_refused_saying_the_difference():
    labels = '<Label value="road"/><Label value="tree"/>'
    polygons = f'<PolygonLabels name="shape" toName="image">{labels}</PolygonLabels>'
    message = r"BrushLabels 'brush' and PolygonLabels 'shape' differ in the labels car, tree"
    with pytest.raises(LabelConfigError, match=message):
        parse_label_config(_config(IMAGE, BRUSH, polygons))


def test_tags_are_known_in_any_case_as_label_studio_knows_them():
    xml = _config(IMAGE, BRUSH).replace("Image", "IMAGE").replace("BrushLabels", "brushlabels")
    assert parse_label_config(xml.replace("<Label ", "<label ")) == parse_label_config(
        _config(IMAGE, BRUSH)
    )
    with pytest.raises(LabelConfigError, match="has a Repeater"):
        parse_label_config(f"<view><repeater>{IMAGE}{BRUSH}</repeater></view>")


def test_controls_on_two_images_are_refused_saying_which():
    right = BRUSH.replace('"brush"', '"other"').replace('toName="image"', 'toName="right"')
    with pytest.raises(LabelConfigError, match=r"labels 2 images: .*'brush' on Image 'image'"):
        parse_label_config(_config(IMAGE, '<Image name="right" value="$right"/>', BRUSH, right))


@pytest.mark.parametrize(
    "name", ["alias-hotkey-hint", "bitmask", "brush-and-polygon", "magic-wand", "smart-controls"]
)
def test_configs_that_people_have_are_served(shared: Path, name):
    config = parse_label_config((shared / "cases/configs" / f"{name}.xml").read_text())
    assert len(config.labels) == 2
    assert config.image_key == "image"


def test_several_images_of_one_task_are_refused_naming_the_tag(shared: Path):
    xml = (shared / "cases/configs/repeater.xml").read_text()
    with pytest.raises(LabelConfigError, match=r'has a Repeater.*write one <Image name="image"'):
        parse_label_config(xml)


def test_a_control_on_several_images_names_them():
    control = f'<BrushLabels name="brush" toName="left,right">{LABELS}</BrushLabels>'
    with pytest.raises(LabelConfigError, match="2 images \\(left, right\\)"):
        parse_label_config(_config(IMAGE, control))


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (_config(IMAGE), "no BrushLabels, BitmaskLabels, PolygonLabels control; add"),
        (_config(IMAGE, BRUSH.replace("Brush", "Rectangle")), "RectangleLabels cannot stand in"),
        (_config(IMAGE, BRUSH, BRUSH.replace("Brush", "Vector")), "a VectorLabels: lines cover no"),
        (_config('<Video name="image" value="$image"/>', BRUSH), "a Video: .*frames"),
        (_config('<Image name="image" value="$a.b"/>', BRUSH), "value='\\$a.b'.*not nested"),
        (_config('<Image name="image" value="$images[0]"/>', BRUSH), "images\\[0\\]'.*not nested"),
        (_config('<Image name="image" value="$a$b"/>', BRUSH), "expected one key"),
        (_config('<Image name="image" value="http://x/$image"/>', BRUSH), "expected one key"),
        (_config(IMAGE, BRUSH.replace("toName", 'value="$labels" toName')), "value='\\$labels'"),
        (_brush('<Label value="a"/><Label value="$b"/>'), "the label '\\$b' from each task"),
        (_config(BRUSH), "toName='image', but the images are none"),
        (_config('<Image name="photo" value="$image"/>', BRUSH), "images are photo"),
        (_config(IMAGE, BRUSH.replace('toName="image"', "")), "0 images \\(none\\)"),
        (_config(IMAGE, BRUSH.replace('name="brush"', "")), "has no name"),
        (_config('<Image name="image" valueList="$images"/>', BRUSH), "valueList"),
        (_config('<Image name="image" value="image.png"/>', BRUSH), "value='image.png'"),
        (_config('<Image name="image" value="$"/>', BRUSH), "value='\\$'"),
        (_config('<Image name="image"/>', BRUSH), "value=''"),
        (_brush(""), "at least one Label"),
        (_brush("<Label/>"), "at least one Label"),
        (_brush('<Label value="a"/><Label value="b" alias="a"/>'), "label a twice"),
        (_brush("".join(f'<Label value="{i}"/>' for i in range(256))), "256 labels, at most 255"),
        ("", "no well-formed XML"),
        ("<View>", "no well-formed XML"),
        ("\ud800", "no well-formed XML"),
        (None, "NoneType"),
        (b"<View/>", "bytes"),
    ],
)
def test_what_cannot_be_served_is_refused_saying_why(xml, message):
    with pytest.raises(LabelConfigError, match=message):
        parse_label_config(xml)


@pytest.mark.parametrize(
    "declaration",
    [
        "<!DOCTYPE View>",
        '<!DOCTYPE View [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE View [<!ENTITY file SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE View SYSTEM "http://example.com/a.dtd">',
    ],
)
def test_document_types_and_entities_are_refused(declaration):
    with pytest.raises(LabelConfigError, match="no well-formed XML"):
        parse_label_config(declaration + _config(IMAGE, BRUSH))


def test_a_config_longer_than_the_limit_is_not_even_parsed():
    with pytest.raises(LabelConfigError, match="characters, at most"):
        parse_label_config("<" * (MAX_CHARACTERS + 1))


@pytest.mark.parametrize("levels", [101, 70_000])
def test_a_config_nested_too_deep_is_refused(levels):
    with pytest.raises(LabelConfigError, match="deeper than 100"):
        parse_label_config("<View>" * levels + "</View>" * levels)


class Counted(str):
    """A name that counts how often it is compared."""

    comparisons = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return str.__eq__(self, other)


@pytest.mark.parametrize("count", [256, 16_000])
def test_too_many_labels_are_refused_without_comparing_each_with_each(monkeypatch, count):
    monkeypatch.setattr(Counted, "comparisons", 0)
    control = Element("BrushLabels", {"name": "brush"})
    for number in range(count):
        SubElement(control, "Label").attrib["value"] = Counted(f"label {number}")
    with pytest.raises(LabelConfigError, match=f"{count} labels, at most 255"):
        label_config._labels(control)
    assert Counted.comparisons <= count
