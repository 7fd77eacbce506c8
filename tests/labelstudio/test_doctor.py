"""What needs no Label Studio; the rest of the doctor is in tests/e2e."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import replace

import pytest

from ralis_backend.cli.demo.label_studio import free_port
from ralis_backend.core.segmenter import SegmenterSpec
from ralis_backend.labelstudio import client as client_module
from ralis_backend.labelstudio import doctor as module
from ralis_backend.labelstudio.client import LabelStudioClient
from ralis_backend.labelstudio.doctor import Surroundings, checks
from ralis_backend.labelstudio.fetcher import ImageFetcher
from ralis_backend.labelstudio.regions_project import MARKER
from ralis_backend.labelstudio.setup import ProjectSetup
from ralis_backend.labelstudio.tool import LabelStudioTool
from ralis_backend.labelstudio.work_checks import (
    error_checks,
    regions_check,
    work_checks,
    worker_check,
)
from ralis_backend.online.owner import own_name
from ralis_backend.online.store import Store
from tests.labelstudio.fake_label_studio import FakeLabelStudio
from tests.online.fake_tool import CLASSES

Usage = namedtuple("Usage", "total used free")
RANDOM = SegmenterSpec(2, encoder_weights=None)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(client_module, "RETRY_PAUSES_S", ())


def surroundings(folder, device="cpu", spec=RANDOM):
    """With a Label Studio that does not run."""
    client = LabelStudioClient(f"http://127.0.0.1:{free_port()}", "token")
    return Surroundings(
        client=client,
        tool=LabelStudioTool(client, ImageFetcher(client, folder / "images", 0)),
        setup=ProjectSetup(client),
        backend_url=f"http://127.0.0.1:{free_port()}",
        headers=lambda _uid: {},
        data_dir=folder,
        spec=spec,
        device=device,
        strategy=lambda classes: "entropy",
    )


def look(folder, device="cpu", spec=RANDOM):
    """The checks by name."""
    return {check.name: check for check in checks(surroundings(folder, device, spec), 1)}


def test_without_label_studio_the_rest_is_checked_and_the_address_is_the_fix(tmp_path):
    found = look(tmp_path / "new" / "folder")
    assert found["data folder"].is_ok
    assert found["device"].is_ok
    assert found["weights"].is_ok
    assert not found["Label Studio"].is_ok
    assert "LABEL_STUDIO_URL" in found["Label Studio"].fix
    assert "token" not in found


def test_a_file_of_weights_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "own.safetensors"
    path.write_bytes(b"no tensors")
    check = look(tmp_path, spec=SegmenterSpec(2, encoder_weights=str(path)))["weights"]
    assert not check.is_ok
    assert f"{path} is truncated or no safetensors file" in check.detail
    assert "RALIS_ENCODER" in check.fix


def test_a_segmenter_without_an_encoder_needs_no_weights(tmp_path, tiny_segmenters):
    wanted = replace(tiny_segmenters, encoder_weights="imagenet")
    check = look(tmp_path, spec=wanted)["weights"]
    assert check.is_ok
    assert check.detail == "tiny, which begins without any"


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("no folder")
    check = look(tmp_path / "file" / "data")["data folder"]
    assert not check.is_ok
    assert str(tmp_path / "file") in check.detail
    assert check.fix


def test_a_full_disk_is_noticed_before_it_stops_the_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: Usage(10**10, 10**10, 10**8))
    check = look(tmp_path)["disk space"]
    assert not check.is_ok
    assert check.detail.startswith("0.1 GB free")
    assert "free at least 2 GB" in check.fix


def test_a_gpu_that_torch_cannot_use_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    check = look(tmp_path, device="cuda")["device"]
    assert not check.is_ok
    assert "RALIS_DEVICE=cpu" in check.fix


@pytest.mark.parametrize(
    ("labels", "extra_params", "setting", "is_ok", "said"),
    [
        (("Crack",), None, None, True, "'Background', a class without a label to paint (on by"),
        (("Crack",), {"background": False}, None, False, "single label 'Crack'"),
        (("Crack",), '{"background": "Road"}', None, True, "'Road', a class without a label"),
        (("Soil", "Crop"), None, None, True, "say nothing (void)"),
        (("Soil", "Crop"), {"background": "soil"}, "Crop", True, "'Soil' (as chosen for"),
        (("Soil", "Crop"), None, "Crop", True, "'Crop' (by RALIS_BACKGROUND_LABEL)"),
        (("Soil", "Crop"), {"background": 7}, None, False, "'background' is of the type int"),
    ],
)
def test_it_is_said_what_unpainted_pixels_are(tmp_path, labels, extra_params, setting, is_ok, said):
    fake = FakeLabelStudio()
    named = "".join(f'<Label value="{name}"/>' for name in labels)
    control = f'<BrushLabels name="brush" toName="image">{named}</BrushLabels>'
    fake.add_project(f'<View><Image name="image" value="$image"/>{control}</View>')
    fake.backends.append({"id": 1, "url": "http://b.test", "extra_params": extra_params})
    tool = LabelStudioTool(fake.client, ImageFetcher(fake.client, tmp_path, 0))
    around = Surroundings(
        client=fake.client,
        tool=tool,
        setup=ProjectSetup(fake.client),
        backend_url=None,
        headers=lambda _uid: {},
        data_dir=tmp_path,
        spec=RANDOM,
        device="cpu",
        strategy=lambda classes: " ".join(classes),
        background_label=setting,
    )
    found = {check.name: check for check in module._project_checks(around, 1, "http://b.test")}
    assert found["background"].is_ok is is_ok
    assert said in found["background"].detail
    if is_ok and "without a label" in said:
        assert len(found["strategy"].detail.split()) == 2, "it is one of the classes"
    if not is_ok:
        assert "--background NAME" in found["background"].fix


@pytest.mark.parametrize("address", ["http://b.test", "http://other.test"])
def test_a_password_in_the_backends_address_is_named_and_not_shown(tmp_path, address):
    fake = FakeLabelStudio()
    fake.add_project("<View/>")
    fake.backends.append({"id": 1, "url": "http://me:sesame@B.test:80", "state": "CO"})
    hook = {"id": 1, "project": 1, "url": "http://me:sesame@b.test/webhook", "is_active": True}
    fake.webhooks.append(hook)
    tool = LabelStudioTool(fake.client, ImageFetcher(fake.client, tmp_path, 0))
    around = replace(
        surroundings(tmp_path), client=fake.client, tool=tool, setup=ProjectSetup(fake.client)
    )
    found = {check.name: check for check in module._project_checks(around, 1, address)}
    for check in (found["ML backend"], found["webhook"]):
        assert not check.is_ok
        assert "sesame" not in check.detail
        assert "ralis connect --project 1" in check.fix
        assert ("a user or password in it" in check.detail) is (address == "http://b.test")
    assert ("connected: http://B.test:80" in found["ML backend"].detail) is ("other" in address)


# Is the work going on


@pytest.fixture
def store(tmp_path):
    opened = Store.open(f"sqlite:///{tmp_path / 'ralis.db'}", tmp_path / "blobs")
    yield opened
    opened.close()


@pytest.fixture
def site(store):
    """A Label Studio with a pool, 1, and its regions project, 2, that are known here."""
    label_studio = FakeLabelStudio()
    label_studio.add_project("<View/>", title="Streets")
    label_studio.add_project(
        "<View/>", title="Streets · regions", description=f"{MARKER}1.1763700000", task_number=48
    )
    row = store.projects.register("1.1763700000", 1, "<View/>", CLASSES, "Streets")
    store.projects.change(
        row.id, regions_tool_id=2, regions_uid="2.1763700000", published_version=0
    )
    return label_studio


def work(store, site):
    return {check.name: check for check in work_checks(store, site.client, 1)}


def test_a_worker_that_does_not_live_is_found_out(store):
    assert not worker_check(store).is_ok
    assert "ralis serve" in worker_check(store).fix
    store.workers.beat(own_name())
    assert worker_check(store).is_ok


def test_queue_error_and_what_was_left_out_are_told(store, site):
    found = work(store, site)
    assert found["regions project"].detail == "project 2: 48 tasks, 0 annotations"
    assert found["last error"].is_ok
    assert not found["queue"].is_ok, "nothing waits for annotators"
    (row,) = store.projects.all()
    store.projects.change(row.id, last_error="out of memory", num_failures=2)
    store.attempts.set_aside(row.id, "image", 3, "the image of task 3 was set aside")
    found = work(store, site)
    assert found["last error"].detail == "project 1: out of memory"
    assert found["set aside"].detail == "the image of task 3 was set aside"
    assert [check.name for check in error_checks(store)] == ["last error"]


def test_a_second_regions_project_and_regions_of_regions_are_named(store, site):
    assert work(store, site)["one regions project"].is_ok
    site.add_project("<View/>", title="double", description=f"{MARKER}1.1763700000")
    site.add_project("<View/>", title="bogus", description=f"{MARKER}2.1763700000")
    check = work(store, site)["one regions project"]
    assert not check.is_ok
    assert "project 3" in check.detail
    assert "project 4" in check.detail


def test_a_regions_project_that_is_gone_is_named(store, site):
    del site.projects[2]
    assert not work(store, site)["regions project"].is_ok


def test_a_project_that_is_not_connected_here_says_so(store, site):
    (check,) = work_checks(store, site.client, 7)
    assert (check.name, check.is_ok) == ("connected", False)
    assert "ralis connect --project 7" in check.fix


def test_the_doctor_of_a_regions_project_names_its_pool(store, site):
    assert regions_check(store, site.client, 1) == "Streets"
    for known in (store, None):
        with pytest.raises(ValueError, match="ralis doctor --project 1"):
            regions_check(known, site.client, 2)


def test_a_misspelt_strategy_fails_without_a_project(tmp_path):
    def unknown():
        raise ValueError("unknown strategy 'bold'")

    around = replace(surroundings(tmp_path), known_strategy=unknown)
    found = {check.name: check for check in checks(around)}
    assert not found["strategy"].is_ok
    assert "bold" in found["strategy"].detail


def test_looking_makes_no_data_folder(tmp_path):
    check = look(tmp_path / "new" / "folder")["data folder"]
    assert "is not there yet" in check.detail
    assert not (tmp_path / "new").exists()


def test_a_database_that_cannot_be_used_is_named_with_what_to_do(tmp_path):
    def refuse() -> str:
        raise ValueError("made by a newer release")

    around = replace(surroundings(tmp_path), database=refuse)
    (check,) = (check for check in checks(around) if check.name == "database")
    assert (check.is_ok, check.detail) == (False, "made by a newer release")
    assert look(tmp_path)["database"].is_ok
