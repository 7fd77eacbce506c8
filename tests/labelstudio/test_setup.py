"""Decisions on what to change in Label Studio; what it makes of them is in tests/e2e."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace

import httpx
import pytest

from ralis_backend.labelstudio import client as client_module
from ralis_backend.labelstudio.errors import LabelStudioError, Unauthorised, Unavailable
from ralis_backend.labelstudio.payloads.instructions import instructions
from ralis_backend.labelstudio.payloads.label_config import (
    KEPT_CLASS,
    Control,
    parse_label_config,
    parse_xml,
)
from ralis_backend.labelstudio.regions_project import MARKER, pool_of
from ralis_backend.labelstudio.setup import ProjectSetup, same_url
from ralis_backend.labelstudio.view import VIEW_TITLE
from ralis_backend.online.tool import ToolProject
from tests.labelstudio.fake_label_studio import FakeLabelStudio

BACKEND = "http://backend.test:9090"


def headers_of(uid):
    return {"Authorization": f"Bearer {uid}/secret"}


HEADERS = headers_of("1.1763700000")


def config(*names):
    labels = "".join(f'<Label value="{name}"/>' for name in names)
    return (
        '<View><Image name="image" value="$image"/>'
        f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels></View>'
    )


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(client_module, "RETRY_PAUSES_S", ())


@pytest.fixture
def label_studio():
    fake = FakeLabelStudio()
    fake.add_project(config("road", "car"))
    return fake


def pool(label_studio):
    xml = label_studio.projects[1]["label_config"]
    return ToolProject("1.1763700000", 1, "Streets", xml, parse_label_config(xml).labels)


def setup_of(label_studio, **options):
    given = {"backend_url": BACKEND, "webhook_headers": headers_of, **options}
    return ProjectSetup(label_studio.client, **given)


def test_connecting_makes_the_backend_with_its_credentials_and_a_webhook(label_studio):
    setup = setup_of(label_studio, user="user", password="secret")
    setup.connect(pool(label_studio), "in-place")
    (backend,) = label_studio.backends
    assert (backend["title"], backend["url"], backend["project"]) == ("RALIS", BACKEND, 1)
    assert (backend["auth_method"], backend["basic_auth_user"]) == ("BASIC_AUTH", "user")
    (hook,) = label_studio.webhooks
    assert (hook["url"], hook["headers"]) == (f"{BACKEND}/webhook", HEADERS)


def test_without_an_address_nothing_is_connected_and_the_setting_is_named(label_studio):
    with pytest.raises(ValueError, match="RALIS_BACKEND_URL"):
        setup_of(label_studio, backend_url=None).connect(pool(label_studio), "in-place")
    assert label_studio.writes == []


def test_a_backend_that_is_connected_already_is_changed_not_doubled(label_studio):
    label_studio.backends.append({"id": 4, "title": "mine", "url": f"{BACKEND}/", "project": 1})
    setup_of(label_studio).connect(pool(label_studio), "in-place")
    (backend,) = label_studio.backends
    assert (backend["title"], backend["url"], backend["auth_method"]) == ("RALIS", BACKEND, "NONE")


def test_preparing_again_changes_nothing(label_studio):
    setup = setup_of(label_studio)
    regions = setup.prepare(pool(label_studio), "crops", None)
    label_studio.writes.clear()
    assert setup.prepare(pool(label_studio), "crops", regions) == regions
    assert label_studio.writes == []


@pytest.mark.parametrize(
    "change", [{"is_active": False}, {"headers": {}}, {"send_for_all_actions": False}]
)
def test_a_webhook_that_somebody_changed_is_repaired_and_doubles_are_deleted(label_studio, change):
    setup = setup_of(label_studio)
    setup.prepare(pool(label_studio), "in-place", None)
    (hook,) = label_studio.webhooks
    wanted = dict(hook)
    hook.update(change)
    label_studio.webhooks.append({**wanted, "id": 9})
    setup.prepare(pool(label_studio), "in-place", None)
    assert label_studio.webhooks == [wanted]


def test_in_place_the_pool_itself_hands_out_the_most_useful_first(label_studio):
    assert setup_of(label_studio).prepare(pool(label_studio), "in-place", None) is None
    assert label_studio.projects[1]["sampling"] == "Uncertainty sampling"
    assert list(label_studio.projects) == [1]


def test_the_regions_project_is_found_by_its_mark_or_made_anew(label_studio):
    setup = setup_of(label_studio)
    regions = setup.prepare(pool(label_studio), "crops", None)
    assert f"{MARKER}1.1763700000" in label_studio.projects[regions]["description"]
    assert setup.prepare(pool(label_studio), "crops", None) == regions
    assert setup.prepare(pool(label_studio), "crops", 1) == regions, "not any project will do"
    assert setup.prepare(pool(label_studio), "crops", 99) == regions, "one that is gone"
    del label_studio.projects[regions]
    label_studio.projects[7] = {**label_studio.projects[1], "id": 7}
    assert setup.prepare(pool(label_studio), "crops", regions) not in (1, 7)


def test_labels_of_the_regions_project_follow_the_pool(label_studio):
    setup = setup_of(label_studio)
    regions = setup.prepare(pool(label_studio), "crops", None)
    label_studio.projects[1]["label_config"] = config("road", "car", "tree")
    setup.prepare(pool(label_studio), "crops", regions)
    labels = parse_label_config(label_studio.projects[regions]["label_config"]).labels
    assert [label.name for label in labels] == ["road", "car", "tree"]


class CarefulLabelStudio(FakeLabelStudio):
    """Refuses interfaces of regions without the controls that annotations use, (name, tag) each."""

    def __init__(self):
        super().__init__()
        self.add_project(config("road", "car"))
        self.used = set()

    def _answer(self, request):
        path = re.fullmatch(r"/api/projects/(\d+)", request.url.path)
        xml = json.loads(request.content or "{}").get("label_config")
        if request.method != "PATCH" or not path or int(path[1]) == 1 or not xml:
            return super()._answer(request)
        if self.used <= {(it.get("name"), it.tag) for it in parse_xml(xml).iter()}:
            return super()._answer(request)
        refusal = {"label_config": ["Created annotations are incompatible"]}
        return httpx.Response(400, json={"validation_errors": refusal})


RENAMED = config("road", "car", "tree").replace("brush", "pen")
ANOTHER_TYPE = config("road", "car", "tree").replace("BrushLabels", "BitmaskLabels")


def test_a_control_that_annotations_use_stays_out_of_sight_beside_the_one_that_follows_it():
    label_studio = CarefulLabelStudio()
    setup = setup_of(label_studio)
    regions = setup.prepare(pool(label_studio), "crops", None)
    label_studio.used = {("brush", "BrushLabels")}
    label_studio.projects[regions]["task_number"] = 3
    label_studio.projects[1]["label_config"] = RENAMED
    setup.prepare(pool(label_studio), "crops", regions)
    shown = label_studio.projects[regions]["label_config"]
    assert parse_label_config(shown).controls == (Control("pen", "brushlabels"),)
    assert len(parse_label_config(shown).labels) == 3
    (kept,) = (it for it in parse_xml(shown).iter() if it.get("className") == KEPT_CLASS)
    assert kept.get("style") == "display:none"
    assert [it.get("name") for it in kept] == ["brush"]
    keys = [it.get("hotkey") for it in parse_xml(shown).iter() if it.tag == "Label"]
    assert len({*keys}) == len(keys)
    label_studio.writes.clear()
    setup.prepare(pool(label_studio), "crops", regions)
    assert label_studio.writes == []
    label_studio.projects[1]["label_config"] = config("road", "car")
    setup.prepare(pool(label_studio), "crops", regions)
    shown = label_studio.projects[regions]["label_config"]
    assert parse_label_config(shown).controls == (Control("brush", "brushlabels"),)
    (kept,) = (it for it in parse_xml(shown).iter() if it.get("className") == KEPT_CLASS)
    assert [it.get("name") for it in kept] == ["pen"], "screens and suggestions may use it"


def test_a_regions_project_without_tasks_keeps_no_control_that_is_gone(label_studio):
    setup = setup_of(label_studio)
    regions = setup.prepare(pool(label_studio), "crops", None)
    label_studio.projects[1]["label_config"] = RENAMED
    setup.prepare(pool(label_studio), "crops", regions)
    shown = label_studio.projects[regions]["label_config"]
    assert parse_label_config(shown).controls == (Control("pen", "brushlabels"),)
    assert KEPT_CLASS not in shown


@pytest.mark.parametrize(
    ("now", "before"),
    [
        (' hotkey="shift+3"', ""),
        (' hotkey="shift+3"', ' hotkey="shift+1"'),
        (' hotkey="shift+4"', ' hotkey="shift+2"'),
        ('"Not worth labelling" hotkey="n"', '"Not worth labelling" hotkey="]"'),
        (' hotkey="1"', ' hotkey="shift+r"'),
    ],
)
def test_an_interface_with_no_key_or_the_key_of_a_tool_gets_one_and_keeps_its_layout(
    label_studio, now, before
):
    setup = setup_of(label_studio)
    regions = setup.prepare(pool(label_studio), "crops", None)
    made = label_studio.projects[regions]["label_config"]
    assert made.count(now) == 1
    changed = made.replace(now, before or "").replace("<Header", '<Header underline="true"')
    label_studio.projects[regions]["label_config"] = changed
    setup.prepare(pool(label_studio), "crops", regions)
    shown = label_studio.projects[regions]["label_config"]
    assert shown.replace(' underline="true"', "") == made
    assert 'underline="true"' in shown
    label_studio.writes.clear()
    setup.prepare(pool(label_studio), "crops", regions)
    assert label_studio.writes == []


def test_an_interface_that_cannot_follow_says_what_to_do_and_stops_no_webhook():
    label_studio = CarefulLabelStudio()
    setup = setup_of(label_studio)
    regions = setup.prepare(pool(label_studio), "crops", None)
    before = label_studio.projects[regions]["label_config"]
    label_studio.used = {("brush", "BrushLabels")}
    label_studio.projects[1]["label_config"] = ANOTHER_TYPE
    label_studio.webhooks.clear()
    with pytest.raises(LabelStudioError, match="another type other names than before in project 1"):
        setup.prepare(pool(label_studio), "crops", regions)
    assert label_studio.projects[regions]["label_config"] == before
    assert [hook["project"] for hook in label_studio.webhooks] == [1, regions]


def test_a_webhook_that_is_refused_keeps_no_label_from_annotators(label_studio):
    setup = setup_of(label_studio)
    regions = setup.prepare(pool(label_studio), "crops", None)
    label_studio.projects[1]["label_config"] = config("road", "car", "tree")

    def refuse(call):
        if "webhooks" in call:
            raise Unauthorised("no")

    label_studio.before = refuse
    with pytest.raises(Unauthorised):
        setup.prepare(pool(label_studio), "crops", regions)
    labels = parse_label_config(label_studio.projects[regions]["label_config"]).labels
    assert [label.name for label in labels] == ["road", "car", "tree"]


def test_a_regions_project_from_before_a_question_gets_it(label_studio):
    setup = setup_of(label_studio)
    regions = setup.prepare(pool(label_studio), "crops", None)
    made = label_studio.projects[regions]["label_config"]
    before = made.replace('<Choice value="Not worth labelling" hotkey="n" />', "")
    label_studio.projects[regions]["label_config"] = before
    setup.prepare(pool(label_studio), "crops", regions)
    assert label_studio.projects[regions]["label_config"] == made != before


def test_the_address_is_the_one_that_is_set_else_the_one_that_is_connected(label_studio, caplog):
    assert setup_of(label_studio, backend_url=f"{BACKEND}/").address(1) == BACKEND
    unset = setup_of(label_studio, backend_url=None)
    label_studio.backends[:] = [
        {"id": 1, "title": "other", "url": "http://other.test"},
        {"id": 4, "title": "RALIS", "url": BACKEND.upper().replace("HTTP", "http")},
        {"id": 2, "title": "RALIS", "url": f"{BACKEND}/"},
    ]
    assert unset.address(1) == BACKEND
    label_studio.backends.append({"id": 3, "title": "RALIS", "url": "http://third.test"})
    with caplog.at_level(logging.WARNING):
        assert unset.address(1) is None
    assert "RALIS_BACKEND_URL" in caplog.text
    unset.prepare(pool(label_studio), "in-place", None)
    assert label_studio.webhooks == []


@pytest.mark.parametrize(
    ("left", "right", "is_same"),
    [
        ("http://a.test:9090", "http://a.test:9090/", True),
        ("http://user:word@a.test/x", "http://a.test/x/", True),
        ("http://a.test/x", "http://a.test/y", False),
        ("http://a.test/http://b.test", "http://b.test", False),
        ("http://a.test", "https://a.test", False),
        ("http://a.test:9090", "http://a.test:9091", False),
        ("http://A.test.:9090", "http://a.test:9090", True),
        ("http://b\u00fccher.test:9090", "http://xn--bcher-kva.test:9090", True),
        ("https://a.test:443", "https://a.test", True),
        ("http://[::1]:9090", "http://[0:0:0:0:0:0:0:1]:9090", True),
        ("http://[::1", "http://[::1", True),
    ],
)
def test_an_address_is_the_same_however_it_is_written_and_whatever_its_credentials(
    left, right, is_same
):
    assert same_url(left, right) is is_same


def test_webhooks_of_pool_and_regions_carry_a_secret_of_their_own_and_no_password(label_studio):
    old = {"Authorization": "Basic dXNlcjpzZWNyZXQ="}
    hook = {"project": 1, "url": f"{BACKEND}/webhook", "headers": old, "is_active": True}
    label_studio.webhooks.append(
        {"id": 5, "send_payload": True, "send_for_all_actions": True, **hook}
    )
    regions = setup_of(label_studio).prepare(pool(label_studio), "crops", None)
    assert {hook["project"]: hook["headers"] for hook in label_studio.webhooks} == {
        1: headers_of("1.1763700000"),
        regions: headers_of(f"{regions}.1763700000"),
    }


def test_a_password_in_the_address_that_label_studio_has_is_not_kept(label_studio):
    unsafe = BACKEND.replace("://", "://user:sesame@")
    label_studio.backends.append({"id": 3, "title": "RALIS", "url": unsafe, "project": 1})
    hook = {"project": 1, "url": f"{unsafe}/webhook", "headers": HEADERS, "is_active": True}
    label_studio.webhooks.append(
        {"id": 5, "send_payload": True, "send_for_all_actions": True, **hook}
    )
    setup_of(label_studio, backend_url=None).prepare(pool(label_studio), "in-place", None)
    assert [hook["url"] for hook in label_studio.webhooks] == [f"{BACKEND}/webhook"]
    setup_of(label_studio).connect(pool(label_studio), "in-place")
    assert [backend["url"] for backend in label_studio.backends] == [BACKEND]


def pool_with(label_studio, background, *names):
    label_studio.projects[1]["label_config"] = config(*names)
    return replace(pool(label_studio), background=background)


def test_annotators_are_told_what_unpainted_means(label_studio):
    setup = setup_of(label_studio)
    told = pool_with(label_studio, "Background", "Crack")
    regions = label_studio.projects[setup.prepare(told, "crops", None)]
    assert regions["show_instruction"]
    assert "unpainted counts as <b>Background</b>" in regions["expert_instruction"]
    assert "Press Escape" not in regions["expert_instruction"], "there is no other label"
    assert "All that is left unpainted is (else Background)" in regions["label_config"]
    assert regions["enable_empty_annotation"], "nothing there is an answer"


def test_what_annotators_are_told_follows_the_background(label_studio):
    setup = setup_of(label_studio)
    told = pool_with(label_studio, "Soil", "Soil", "Crop")
    number = setup.prepare(told, "crops", None)
    setup.prepare(replace(told, background=None), "crops", number)
    regions = label_studio.projects[number]
    assert "unpainted counts as not labelled" in regions["expert_instruction"]
    assert "Press Escape before you choose another label" in regions["expert_instruction"]
    assert "(else Soil)" not in regions["label_config"]
    assert not regions["enable_empty_annotation"], "Label Studio refuses what says nothing"


def test_the_owner_s_instructions_are_kept(label_studio):
    setup = setup_of(label_studio)
    label_studio.projects[1]["expert_instruction"] = "<p>Ask Ada.</p>"
    told = pool_with(label_studio, None, "road", "car")
    number = setup.prepare(told, "crops", None)
    assert label_studio.projects[number]["expert_instruction"].endswith("<p>Ask Ada.</p>")
    label_studio.projects[number]["expert_instruction"] = "<p>Mine</p>"
    label_studio.writes.clear()
    setup.prepare(told, "crops", number)
    assert label_studio.projects[number]["expert_instruction"] == "<p>Mine</p>"
    assert label_studio.writes == []


def test_labels_are_shown_as_text_in_the_instructions():
    text = instructions(["<b>x</b>"], "<i>", is_brush=True)
    assert "&lt;b&gt;x&lt;/b&gt;" in text
    assert "<i>" not in text
    assert "brush" not in instructions(["x"], None, is_brush=False).lower()


@pytest.mark.parametrize("stated", [None, {"strategy": "margin"}, '{"strategy": "margin"}', "no"])
def test_a_choice_joins_the_connection_s_extra_params(label_studio, stated):
    known = {"id": 4, "title": "RALIS", "url": BACKEND, "project": 1, "extra_params": stated}
    label_studio.backends.append(known)
    setup = setup_of(label_studio)
    setup.connect(pool(label_studio), "in-place")
    assert label_studio.backends[0]["extra_params"] == stated
    setup.connect(pool(label_studio), "in-place", {"background": "Soil"})
    kept = {} if stated in (None, "no") else {"strategy": "margin"}
    assert setup.extra_params(1) == {**kept, "background": "Soil"}


# Once


def copy_of(label_studio, project_id, **changes):
    """A second project that is like one; its id."""
    made = {
        name: value for name, value in label_studio.projects[project_id].items() if name != "id"
    }
    return label_studio.add_project(**{**made, **changes})


def test_a_description_that_somebody_wrote_anew_keeps_the_project_and_gets_its_mark(label_studio):
    setup = setup_of(label_studio)
    regions = setup.prepare(pool(label_studio), "crops", None)
    label_studio.projects[regions]["description"] = "Ask Ann before you label."
    assert setup.prepare(pool(label_studio), "crops", regions) == regions
    assert label_studio.projects[regions]["description"] == (
        f"Ask Ann before you label. {MARKER}1.1763700000"
    )


def test_a_regions_project_is_known_by_its_uid_whatever_its_owner_has_made_of_it(label_studio):
    setup = setup_of(label_studio)
    regions = setup.prepare(pool(label_studio), "crops", None)
    plain = label_studio.projects[regions]["label_config"].replace("ralis-crop", "mine")
    label_studio.projects[regions] |= {"description": "Ours.", "label_config": plain}
    uid = f"{regions}.1763700000"
    assert setup.prepare(pool(label_studio), "crops", regions, uid) == regions
    assert label_studio.projects[regions]["description"] == f"Ours. {MARKER}1.1763700000"
    assert label_studio.projects[regions]["label_config"] == plain
    label_studio.projects[regions]["description"] = "Ours."
    another = setup.prepare(pool(label_studio), "crops", regions, f"{regions}.1763799999")
    assert another != regions, "its number was given to another project"


@pytest.mark.parametrize(
    ("description", "pool_uid"),
    [
        (f"Regions. {MARKER}1.1763700000", "1.1763700000"),
        (f"{MARKER}1.1763700000. By Ann.", "1.1763700000"),
        (f"{MARKER}1.17637000001", "1.17637000001"),
        (f"{MARKER}x", None),
        ("", None),
        (None, None),
    ],
)
def test_a_mark_names_one_pool_and_no_other_that_begins_alike(description, pool_uid):
    assert pool_of({"description": description}) == pool_uid


def test_of_two_regions_projects_the_one_that_was_labelled_in_is_taken(label_studio):
    setup = setup_of(label_studio)
    first = setup.prepare(pool(label_studio), "crops", None)
    second = copy_of(label_studio, first)
    assert setup.prepare(pool(label_studio), "crops", None) == first, "the oldest of equal ones"
    label_studio.projects[second]["total_annotations_number"] = 1
    assert setup.prepare(pool(label_studio), "crops", None) == second
    assert setup.prepare(pool(label_studio), "crops", first) == first, "what is in use stays"


def test_an_empty_double_goes_and_one_that_holds_something_is_named(label_studio):
    setup = setup_of(label_studio)
    regions = setup.prepare(pool(label_studio), "crops", None)
    empty = copy_of(label_studio, regions)
    silent = copy_of(label_studio, regions)
    del label_studio.projects[silent]["task_number"]
    full = copy_of(label_studio, regions, task_number=3, total_annotations_number=2)
    others = copy_of(label_studio, regions, description=f"{MARKER}7.1763700000")
    notes = setup.tidy_doubles(pool(label_studio), regions)
    assert empty not in label_studio.projects
    assert {regions, silent, full, others} <= label_studio.projects.keys()
    assert any(
        f"project {full} is a second regions project of project 1, with 3" in it for it in notes
    )
    assert len(notes) == 2
    assert setup.tidy_doubles(pool(label_studio), regions) == notes


def test_an_ml_backend_that_was_connected_twice_is_there_once(label_studio, caplog):
    setup = setup_of(label_studio)
    setup.connect(pool(label_studio), "crops")
    label_studio.backends.append({**label_studio.backends[0], "id": 9, "url": f"{BACKEND}/"})
    label_studio.backends.append({"id": 10, "title": "RALIS", "url": "http://old.test"})
    label_studio.backends.append({"id": 11, "title": "SAM", "url": "http://sam.test"})
    with caplog.at_level(logging.WARNING):
        setup.connect(pool(label_studio), "crops")
    assert [it["id"] for it in label_studio.backends] == [1, 10, 11]
    assert "http://old.test" in caplog.text
    assert "http://sam.test" not in caplog.text


def test_the_tab_of_the_regions_is_made_once_and_doubles_go(label_studio):
    setup = setup_of(label_studio)
    regions = setup.connect(pool(label_studio), "crops")
    (view,) = label_studio.views
    assert view["data"]["title"] == VIEW_TITLE
    label_studio.views.append({**view, "id": 7})
    setup.prepare(pool(label_studio), "crops", regions)
    assert label_studio.views == [view]


def test_a_tab_that_people_deleted_comes_back_with_connect_alone(label_studio):
    setup = setup_of(label_studio)
    regions = setup.connect(pool(label_studio), "crops")
    label_studio.views[:] = [{"id": 3, "project": regions, "data": {"title": "Default"}}]
    setup.prepare(pool(label_studio), "crops", regions)
    assert [view["id"] for view in label_studio.views] == [3]
    setup.connect(pool(label_studio), "crops", regions_project_id=regions)
    assert len(label_studio.views) == 2


def test_a_tab_that_is_refused_stops_nothing(label_studio, caplog):
    def refuse(call):
        if "views" in call:
            raise Unavailable("no tabs today")

    label_studio.before = refuse
    with caplog.at_level(logging.WARNING):
        assert setup_of(label_studio).connect(pool(label_studio), "crops") == 2
    assert "no tabs today" in caplog.text


def test_disconnecting_takes_off_what_is_ours_and_nothing_else(label_studio):
    setup = setup_of(label_studio)
    regions = setup.connect(pool(label_studio), "crops")
    label_studio.backends.append({"id": 11, "title": "SAM", "url": "http://sam.test"})
    other = {"id": 12, "project": 1, "url": "http://sam.test/webhook"}
    label_studio.webhooks.append(other)
    assert setup.disconnect(1, regions, BACKEND) == (1, 2)
    assert [it["title"] for it in label_studio.backends] == ["SAM"]
    assert label_studio.webhooks == [other]
    assert setup.disconnect(1, regions, BACKEND) == (0, 0)
    assert regions in label_studio.projects
