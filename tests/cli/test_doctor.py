import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from ralis_backend import wiring
from ralis_backend.cli import app
from ralis_backend.cli.demo.label_studio import free_port
from ralis_backend.cli.doctor import create_surroundings
from ralis_backend.settings import load_settings


@pytest.mark.e2e
def test_doctor_names_what_fails_and_what_to_do(environment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nowhere = f"http://127.0.0.1:{free_port()}"
    there = {"LABEL_STUDIO_URL": nowhere, "RALIS_BACKEND_URL": nowhere}
    answer = CliRunner().invoke(app, ["doctor"], env={**environment, **there})
    assert answer.exit_code == 1
    assert "ok   data folder" in answer.stdout
    assert "FAIL Label Studio" in answer.stdout
    assert "-> start it, and set LABEL_STUDIO_URL" in answer.stdout


def test_doctor_checks_the_strategy_that_the_connection_names(tmp_path, monkeypatch):
    class Connection:
        def extra_params(self, project_id: int) -> dict[str, str]:
            return {"strategy": "presence:Car"} if project_id == 5 else {}

    monkeypatch.setattr(wiring, "create_setup", lambda settings: Connection())
    settings = load_settings(data_dir=tmp_path, strategy="entropy", policies_dir=tmp_path)
    with pytest.raises(ValueError, match="'Car' is not one of Bus"):
        create_surroundings(settings, 5).strategy(["Bus"])
    assert create_surroundings(settings, 5).strategy(["Bus", "Car"]) == "presence:Car"
    assert create_surroundings(settings, 6).strategy(["Bus"]) == "entropy"


def look_at(tmp_path, xml, **env):
    path = tmp_path / "config.xml"
    path.write_bytes(xml if isinstance(xml, bytes) else xml.encode())
    return CliRunner().invoke(app, ["doctor", "--label-config", str(path)], env=env)


def test_a_label_config_is_looked_at_without_any_server(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = look_at(tmp_path, (shared / "cases/configs/magic-wand.xml").read_bytes())
    assert answer.exit_code == 0, answer.output
    assert "ok   label config: 2 labels, cell, nucleus, painted with 'tag'" in answer.stdout
    assert "gets Image 'image', MagicWand 'wand', BrushLabels 'tag'" in answer.stdout
    assert list(tmp_path.iterdir()) == [tmp_path / "config.xml"], "nothing is made"


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<View/>", "has no BrushLabels, BitmaskLabels, PolygonLabels control"),
        ("<View>", "is no well-formed XML"),
        ("", "is no well-formed XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>', "is no well-formed XML"),
    ],
)
def test_a_label_config_that_cannot_be_served_is_refused_with_what_to_write(
    tmp_path, monkeypatch, xml, message
):
    monkeypatch.chdir(tmp_path)
    answer = look_at(tmp_path, xml)
    assert answer.exit_code == 1
    assert f"FAIL label config: the label config {message}" in answer.stdout
    assert "-> change the labelling interface" in answer.stdout


def test_what_regions_do_not_show_is_named_and_one_label_gets_a_background(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = look_at(
        tmp_path,
        '<View><Text name="caption" value="$caption"/><Image name="image" value="$image"/>'
        '<BrushLabels name="brush" toName="image"><Label value="Crack"/></BrushLabels></View>',
    )
    assert answer.exit_code == 0
    assert "left out there: Text 'caption'" in answer.stdout
    assert "1 label, Crack" in answer.stdout
    assert "ok   background: " in answer.stdout


def test_a_file_that_is_no_text_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = look_at(tmp_path, b"\xff\xfe<")
    assert answer.exit_code != 0
    assert "no UTF-8 text" in str(answer.exception or answer.output)


def test_a_database_of_a_newer_release_is_a_check_of_its_own(tmp_path, monkeypatch):
    settings = load_settings(data_dir=tmp_path)
    assert "`ralis connect` makes it" in create_surroundings(settings).database()
    store = wiring.create_store(settings)
    assert "of this release" in create_surroundings(settings).database()
    with store.database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    around = create_surroundings(settings, 5)
    with pytest.raises(ValueError, match="made by a newer release"):
        around.database()
    assert around.pictures("5.100") == "the worker has not read them yet"


@pytest.mark.parametrize(
    ("strategy", "message"),
    [("presence", "named as 'presence:CLASS'"), ("damaged", "damaged.safetensors is truncated")],
)
def test_a_strategy_that_no_project_could_rank_with_is_found_without_one(
    tmp_path, strategy, message
):
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    settings = load_settings(data_dir=tmp_path, strategy=strategy, policies_dir=tmp_path)
    with pytest.raises(ValueError, match=message):
        create_surroundings(settings).known_strategy()
