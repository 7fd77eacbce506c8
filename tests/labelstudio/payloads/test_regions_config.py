from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

from ralis_backend.labelstudio.payloads.hotkeys import LABEL_STUDIO_HOTKEYS
from ralis_backend.labelstudio.payloads.label_config import (
    KEPT_CLASS,
    parse_label_config,
    parse_xml,
)
from ralis_backend.labelstudio.payloads.regions_config import (
    WAND_KEYS,
    carried_parts,
    is_like,
    regions_config,
)

LABELS = '<Label value="road" background="#804080"/><Label value="car" background="#0000ff"/>'
IMAGE = '<Image name="image" value="$image"/>'
BRUSH = f'<BrushLabels name="brush" toName="image">{LABELS}</BrushLabels>'


def _config(*parts: str) -> str:
    return f"<View>{''.join(parts)}</View>"


def _brush(labels: str) -> str:
    return _config(IMAGE, f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels>')


def _regions(xml: str):
    """The interface of regions, parsed; it is served again, and has all that is the owner's."""
    config = parse_label_config(xml)
    made = regions_config(config)
    again = parse_label_config(made)
    assert (again.labels, again.controls) == (config.labels, config.controls)
    assert carried_parts(again) >= carried_parts(config)
    assert is_like(made, config)
    return fromstring(made)


def _case(shared: Path, name: str):
    return _regions((shared / "cases/configs" / f"{name}.xml").read_text())


def test_helpers_and_the_look_of_the_image_are_carried(shared: Path):
    regions = _case(shared, "magic-wand")
    wand = regions.find(".//MagicWand")
    assert wand is not None
    assert wand.attrib == {"name": "wand", "toName": "image"}
    headers = [it.get("value", "") for it in regions.iter("Header")]
    assert any(WAND_KEYS in it for it in headers)
    image = regions.find(".//Image[@name='image']")
    assert image is not None
    looks = {"brightnessControl": "true", "contrastControl": "true", "crossOrigin": "anonymous"}
    assert image.attrib.items() >= looks.items()
    assert image.get("value") == "$image"


def test_smart_controls_are_carried_with_their_labels(shared: Path):
    regions = _case(shared, "smart-controls")
    for tag, name in (("KeyPointLabels", "point"), ("RectangleLabels", "box")):
        control = regions.find(f".//{tag}")
        assert control is not None
        assert control.attrib == {"name": name, "toName": "image", "smart": "true"}
        assert [label.get("value") for label in control] == ["defect", "scratch"]


def test_the_shown_name_the_alias_the_keys_and_the_hints_are_the_owners(shared: Path):
    road, wall = _case(shared, "alias-hotkey-hint").find(".//BrushLabels") or ()
    assert road.attrib == {
        "value": "Road surface",
        "alias": "1",
        "hotkey": "r",
        "hint": "drivable",
        "background": "#804080",
    }
    assert (wall.get("value"), wall.get("hotkey"), wall.get("background")) == (
        "Wall",
        "w",
        "#66669C",
    )


@pytest.mark.parametrize("name", ["bitmask", "brush-and-polygon", "one-label"])
def test_the_controls_are_the_owners(shared: Path, name):
    _case(shared, name)


def test_what_needs_a_key_that_regions_lack_is_left_out():
    pool = _config(
        '<Text name="caption" value="$caption"/><Header value="$title"/>',
        IMAGE.replace("/>", ' defaultZoom="$zoom" brightnessControl="true"/>'),
        BRUSH.replace("toName", 'opacity="$opacity" toName'),
        '<Choices name="c" toName="caption"><Choice value="yes"/></Choices>',
        '<Rectangle name="r" toName="other"/><Image name="other" value="$other"/>',
    )
    regions = _regions(pool)
    values = [element.get("Value") or element.get("value") for element in regions.iter()]
    assert {it for it in values if it and it.startswith("$")} == {"$note", "$image", "$context"}
    assert not [it for element in regions.iter() for it in element.attrib.values() if "$o" in it]
    assert regions.find(".//Rectangle") is None


def test_the_server_counts_one_data_key_so_that_files_can_be_stored():
    config = parse_label_config(_config(IMAGE, BRUSH))
    made = regions_config(config)
    context = 'value="$image" Value="$context"'
    assert context in made, "the page takes the last of them"
    assert not is_like(made.replace(context, 'value="$context"'), config)
    counted = [it for it in fromstring(made).iter() if it.get("name") and it.get("value")]
    assert {it.get("value") for it in counted} == {"$image"}


def test_an_interface_that_lacks_what_the_owner_added_is_written_anew(shared: Path):
    before = regions_config(parse_label_config(_config(IMAGE, BRUSH)))
    wand = '<MagicWand name="wand" toName="image"/>'
    for pool in (
        _config(IMAGE, wand, BRUSH),
        _config(IMAGE.replace("/>", ' brightnessControl="true"/>'), BRUSH),
        _config(IMAGE, BRUSH.replace('value="road"', 'value="road" hotkey="x"')),
        _config(IMAGE, BRUSH.replace('value="road"', 'value="Street" alias="road"')),
    ):
        config = parse_label_config(pool)
        assert not is_like(before, config)
        assert is_like(regions_config(config), config)
    assert not is_like("<View>", parse_label_config(_config(IMAGE, BRUSH)))


def test_boxes_that_are_not_smart_and_those_of_suggested_regions_are_left_out():
    pool = _config(
        IMAGE,
        '<RectangleLabels name="box" toName="image"><Label value="car"/></RectangleLabels>',
        '<RectangleLabels name="region" toName="image" smart="true">'
        '<Label value="Suggested region"/></RectangleLabels>',
        BRUSH,
    )
    assert _regions(pool).find(".//RectangleLabels") is None


def test_one_stroke_has_one_label_and_needs_no_other_answer():
    attributes = 'choice="multiple" required="true" whenTagName="c" maxUsages="1" strokeWidth="9"'
    regions = _regions(_config(IMAGE, BRUSH.replace("toName", f"{attributes} toName")))
    brush = regions.find(".//BrushLabels")
    assert brush is not None
    assert brush.attrib == {
        "name": "brush",
        "toName": "image",
        "opacity": "0.4",
        "strokeWidth": "9",
    }


def test_attributes_are_the_owners_in_whatever_case_they_are_written():
    image = '<Image name="image" value="$image" ZOOM="false" rotatecontrol="true"/>'
    shown = _regions(_config(image, BRUSH)).find(".//Image[@name='image']")
    assert shown is not None
    assert "zoom" not in shown.attrib
    assert "rotateControl" not in shown.attrib
    assert (shown.get("ZOOM"), shown.get("rotatecontrol")) == ("false", "true")


def test_no_key_is_given_twice():
    labels = "".join(
        f'<Label value="{name}"{key}/>'
        for name, key in (
            ("a", ' hotkey="0"'),
            ("b", ' hotkey="1"'),
            ("c", ' hotkey="N"'),
            ("d", ""),
        )
    )
    regions = _regions(_brush(labels))
    keys = [it.get("hotkey") for it in regions.iter() if it.get("hotkey")]
    assert keys[:4] == ["0", "1", "N", "2"]
    assert len({key.lower() for key in keys}) == len(keys)
    assert len(regions.findall(".//Choices[@name='feedback']/Choice[@hotkey]")) == 2


@pytest.mark.parametrize("tag", ["BrushLabels", "PolygonLabels"])
def test_the_regions_projects_config_has_the_same_control_and_labels(tag):
    labels = '<Label value="B&amp;W &quot;x&quot;" background="red"/><Label value="x" alias="道"/>'
    control = f'<{tag} name="mask" toName="photo">{labels}</{tag}>'
    config = parse_label_config(_config('<Image name="photo" value="$url"/>', control))
    again = parse_label_config(regions_config(config))
    assert again.labels == config.labels
    assert (again.control_name, again.control_type) == (config.control_name, config.control_type)
    assert (again.image_name, again.image_key) == ("photo", "image")


def test_the_regions_projects_config_gives_each_tag_a_name_of_its_own():
    control = f'<BrushLabels name="feedback" toName="context">{LABELS}</BrushLabels>'
    config = parse_label_config(_config('<Image name="context" value="$image"/>', control))
    assert parse_label_config(regions_config(config)).labels == config.labels
    assert regions_config(config).count(' name="context"') == 1
    assert regions_config(config).count(' name="feedback"') == 1


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9, 12, 23, 24, 48, 49, 120])
def test_everything_has_a_key_and_none_is_a_tools(count):
    labels = "".join(f'<Label value="class {index}"/>' for index in range(count))
    regions = _regions(_brush(labels))
    keys = [it.get("hotkey") for it in regions.iter() if it.tag in ("Label", "Choice")]
    assert len(keys) >= 2 * count
    assert None not in keys
    assert not {*keys} & LABEL_STUDIO_HOTKEYS
    near = [key for key in keys if "+f1" not in str(key)]
    assert len({*near}) == len(near)
    assert [it.get("hotkey") for it in regions.iter("Label")][:9] == [*"123456789"][:count]


def test_keys_of_what_is_out_of_sight_are_far_from_those_in_use():
    before = regions_config(parse_label_config(_brush(LABELS)))
    pen = parse_label_config(_brush(LABELS).replace("brush", "pen"))
    shown = parse_xml(regions_config(pen, before=before))
    (kept,) = (it for it in shown.iter() if it.get("className") == KEPT_CLASS)
    assert {str(it.get("hotkey")).rpartition("+")[2][0] for it in kept.iter("Label")} == {"f"}
    alone = _regions(_brush(LABELS).replace("brush", "pen"))
    in_use = [it for it in shown.iter("Label") if it not in list(kept.iter())]
    assert [it.get("hotkey") for it in in_use] == [it.get("hotkey") for it in alone.iter("Label")]


def test_controls_in_use_come_after_kept_ones_and_kept_ones_of_their_type_after_others():
    polygon = _config(IMAGE, f'<PolygonLabels name="poly" toName="image">{LABELS}</PolygonLabels>')
    before = regions_config(parse_label_config(_brush(LABELS)))
    before = regions_config(parse_label_config(polygon), before=before)
    pen = parse_label_config(_brush(LABELS).replace("brush", "pen"))
    shown = parse_xml(regions_config(pen, before=before))
    names = [it.get("name") for it in shown.iter() if it.tag.endswith("Labels")]
    assert names == ["poly", "brush", "pen"]


def test_a_class_that_comes_back_has_its_name_in_kept_controls():
    before = regions_config(parse_label_config(_brush('<Label value="road"/>')))
    both = _brush('<Label value="road"/><Label value="new"/>').replace("brush", "pen")
    shown = parse_xml(regions_config(parse_label_config(both), before=before))
    (kept,) = (it for it in shown.iter() if it.get("className") == KEPT_CLASS)
    colors = {it.get("value"): it.get("background") for it in shown.iter("Label")}
    assert [it.get("value") for it in kept.iter("Label")] == ["road", "new"]
    assert [it.get("background") for it in kept.iter("Label")] == [colors["road"], colors["new"]]


def test_nothing_that_is_out_of_sight_must_be_answered_or_is_answered_already():
    asked = (
        '<Choices name="quality" toName="image" required="true" requiredMessage="!" '
        'choice="multiple"><Choice value="good" selected="true"/></Choices>'
    )
    before = _config(IMAGE, BRUSH.replace("<Label", '<Label maxUsages="1"', 1), asked)
    pen = parse_label_config(_brush(LABELS).replace("brush", "pen"))
    shown = parse_xml(regions_config(pen, before=before))
    (kept,) = (it for it in shown.iter() if it.get("className") == KEPT_CLASS)
    assert [it.get("name") for it in kept] == ["brush", "quality"]
    names = {name for it in kept.iter() if it is not kept for name in it.attrib}
    assert names == {"name", "toName", "choice", "value", "background", "hotkey"}
