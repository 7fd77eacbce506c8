import errno
import logging
import os
from pathlib import Path

import httpx
import pytest
import yaml
from huggingface_hub import constants

from ralis_backend.core.policy.registry import policy_file
from ralis_backend.settings import (
    Settings,
    SettingsError,
    load_settings,
    setting_names,
    settings_table,
    use_restored_hub_cache,
)
from tests import REPOSITORY


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(("RALIS_", "LABEL_STUDIO_", "PROMETHEUS_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults_need_no_environment(tmp_path):
    settings = load_settings()
    assert settings.region_size == (128, 128)
    assert settings.mode == "in-place"
    assert settings.database_url == f"sqlite:///{tmp_path / '.ralis' / 'ralis.db'}"
    assert not settings.has_credentials


def test_an_api_key_makes_crops_the_default_mode(monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "abc")
    assert load_settings().mode == "crops"
    monkeypatch.setenv("RALIS_MODE", "in-place")
    assert load_settings().mode == "in-place"


def test_crops_mode_without_a_key_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("RALIS_MODE", "crops")
    with pytest.raises(SettingsError, match="LABEL_STUDIO_API_KEY"):
        load_settings()


def test_region_size_is_height_by_width(monkeypatch):
    monkeypatch.setenv("RALIS_REGION_SIZE", "80x90")
    assert load_settings().region_size == (80, 90)


@pytest.mark.parametrize("value", ["128", "128x", "axb", "128x128x3", "0x128", "-1x2", "9999x9999"])
def test_a_bad_region_size_is_named_with_the_form_expected(monkeypatch, value):
    monkeypatch.setenv("RALIS_REGION_SIZE", value)
    with pytest.raises(SettingsError, match=r"RALIS_REGION_SIZE: .*(128x128|16 to 8192)"):
        load_settings()


def test_every_bad_setting_is_named_at_once_without_its_value(monkeypatch):
    monkeypatch.setenv("RALIS_REGIONS_PER_ROUND", "none-of-your-business")
    monkeypatch.setenv("RALIS_MODE", "sideways")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "RALIS_REGIONS_PER_ROUND" in str(caught.value)
    assert "RALIS_MODE" in str(caught.value)
    assert "none-of-your-business" not in str(caught.value)


def test_user_and_password_go_together(monkeypatch):
    monkeypatch.setenv("RALIS_AUTH_USER", "a")
    with pytest.raises(SettingsError, match="RALIS_AUTH_PASSWORD"):
        load_settings()


def test_secrets_are_not_printed(monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "sesame")
    monkeypatch.setenv("RALIS_AUTH_TOKEN", "sesame")
    assert "sesame" not in repr(load_settings())


def test_env_file_is_read_and_the_environment_wins(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("RALIS_SEED=7\nRALIS_STRATEGY=margin\nOTHER=1\n")
    monkeypatch.setenv("RALIS_STRATEGY", "random")
    settings = load_settings()
    assert (settings.seed, settings.strategy) == (7, "random")


def test_what_the_command_line_gives_comes_first(monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "abc")
    monkeypatch.setenv("RALIS_BACKEND_URL", "http://a:1")
    settings = load_settings(backend_url="http://b:2/", mode=None)
    assert (settings.backend_url, settings.mode) == ("http://b:2", "crops")


def test_a_misspelt_name_in_the_env_file_is_refused_naming_the_nearest(tmp_path):
    (tmp_path / ".env").write_text("RALIS_REGIONSIZE=64x64\n")
    with pytest.raises(SettingsError, match=r"RALIS_REGIONSIZE.*RALIS_REGION_SIZE"):
        load_settings()


def test_a_misspelt_name_in_the_environment_is_warned_about(monkeypatch, caplog):
    monkeypatch.setenv("RALIS_REGIONSIZE", "64x64")
    with caplog.at_level(logging.WARNING):
        load_settings()
    assert "RALIS_REGION_SIZE" in caplog.text


def test_sizes_take_units_and_hosts_take_commas(monkeypatch):
    monkeypatch.setenv("RALIS_CACHE_BYTES", "1MiB")
    monkeypatch.setenv("RALIS_IMAGE_HOSTS", "Images.example.com, cdn.example.com")
    settings = load_settings()
    assert settings.cache_bytes == 1024**2
    assert settings.image_hosts == ("images.example.com", "cdn.example.com")


def test_projects_whose_uploads_may_be_shown_are_ids_or_all(monkeypatch):
    assert load_settings().upload_projects == ()
    monkeypatch.setenv("RALIS_UPLOAD_PROJECTS", "3, 17")
    assert load_settings().upload_projects == ("3", "17")
    for bad in ("three", "0", "3;17", "-1"):
        monkeypatch.setenv("RALIS_UPLOAD_PROJECTS", bad)
        with pytest.raises(SettingsError, match="UPLOAD_PROJECTS: expected ids"):
            load_settings()


def test_folders_of_local_files_are_told_by_project(monkeypatch):
    assert load_settings().local_folders == ()
    monkeypatch.setenv("RALIS_LOCAL_FOLDERS", "3:/scans/2026/, 17:a b,*:*")
    assert load_settings().local_folders == (("3", "scans/2026"), ("17", "a b"), ("*", "*"))
    for bad in ("scans", "3:", "0:scans", "3:/", "3:a/../b", "x:scans", "3:a//b"):
        monkeypatch.setenv("RALIS_LOCAL_FOLDERS", bad)
        with pytest.raises(SettingsError, match="LOCAL_FOLDERS: expected a project's id"):
            load_settings()


def test_empty_variables_count_as_unset(monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "")
    assert load_settings().label_studio_api_key is None


def test_random_encoder_weights_are_none():
    assert Settings(encoder_weights="none").initial_weights is None
    assert Settings().initial_weights == "imagenet"


def test_the_table_has_a_row_for_every_setting():
    table = settings_table()
    for name in setting_names():
        assert f"| `{name}` |" in table
    assert "| `RALIS_REGION_SIZE` | `128x128` |" in table
    assert "| `RALIS_CACHE_BYTES` | `2GiB` |" in table


def test_every_setting_stands_in_the_documentation():
    text = (REPOSITORY / "docs" / "settings.md").read_text()
    missing = [name for name in setting_names() if f"`{name}`" not in text]
    assert missing == []


def test_certificates_and_proxies_come_from_the_environment_in_either_case(monkeypatch, tmp_path):
    authority = tmp_path / "ca.pem"
    authority.touch()
    (tmp_path / ".env").write_text(f"SSL_CERT_FILE={authority}\n")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("https_proxy", "user:secret@proxy.corp:3128")
    monkeypatch.setenv("NO_PROXY", "Corp, .example.com 10.0.0.0/8")
    settings = load_settings()
    monkeypatch.delenv("SSL_CERT_FILE")  # it was passed on, for the hub
    assert settings.ssl_cert_file == authority
    assert settings.https_proxy.get_secret_value() == "http://user:secret@proxy.corp:3128"
    assert settings.no_proxy == ("corp", ".example.com", "10.0.0.0/8")
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSL_CERT_FILE", "/nowhere/ca.pem"),
        ("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem"),
        ("HTTPS_PROXY", "socks5://proxy.corp:1080"),
        ("HTTP_PROXY", "http://"),
    ],
)
def test_certificates_and_proxies_that_cannot_be_used_are_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: "):
        load_settings()


def test_the_hubs_own_settings_are_read_from_the_env_file_too(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text(
        f"HF_HUB_CACHE={tmp_path / 'mine'}\nHF_ENDPOINT=http://hub.test\n"
    )
    monkeypatch.setenv("HF_HUB_CACHE", "")
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_ENDPOINT", "http://environment.wins")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "default")
    load_settings()
    assert os.environ["HF_HUB_CACHE"] == str(tmp_path / "mine") == constants.HF_HUB_CACHE
    assert os.environ["HF_ENDPOINT"] == "http://environment.wins"
    monkeypatch.delenv("HF_HUB_CACHE")


def test_a_hub_cache_copied_without_its_links_is_made_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = tmp_path / "cache" / "models--hub--net"
    (model / "blobs").mkdir(parents=True)
    (model / "snapshots" / "abc").mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("abc")
    (model / "blobs" / "0123abcd").write_text("weights")
    (model / "snapshots" / "abc" / "model.safetensors").write_text("../../blobs/0123abcd")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for _ in range(2):  # again, with the copy already there
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        use_restored_hub_cache(tmp_path / "copy")
        copy = tmp_path / "copy" / "models--hub--net"
        assert os.environ["HF_HUB_CACHE"] == str(tmp_path / "copy")
        assert str(tmp_path / "copy") == constants.HF_HUB_CACHE
        assert (copy / "snapshots" / "abc" / "model.safetensors").read_text() == "weights"
        assert (copy / "refs" / "main").read_text() == "abc"


def test_a_whole_hub_cache_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    use_restored_hub_cache(tmp_path / "copy")
    assert os.environ["HF_HUB_CACHE"] == str(tmp_path)
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RALIS_AUTH_USER", "name:word"),
        ("RALIS_AUTH_USER", "müller"),
        ("RALIS_AUTH_USER", " ralis"),
        ("RALIS_AUTH_PASSWORD", "paßwort"),
        ("RALIS_AUTH_PASSWORD", "密码"),
        ("RALIS_AUTH_PASSWORD", "pass\tword"),
        ("RALIS_AUTH_PASSWORD", "pass\x7fword"),
        ("RALIS_AUTH_PASSWORD", "password "),
        ("RALIS_AUTH_PASSWORD", "   "),
        ("RALIS_AUTH_TOKEN", "to ken"),
        ("RALIS_AUTH_TOKEN", "tökén"),
    ],
)
def test_credentials_that_would_never_match_are_refused_without_showing_them(
    monkeypatch, name, value
):
    monkeypatch.setenv("RALIS_AUTH_USER", "ralis")
    monkeypatch.setenv("RALIS_AUTH_PASSWORD", "secret")
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: ") as refused:
        load_settings()
    assert value not in str(refused.value)


def test_credentials_may_hold_any_sign_of_ascii(monkeypatch):
    signs = "".join(chr(code) for code in range(33, 127))
    monkeypatch.setenv("RALIS_AUTH_USER", signs.replace(":", "") + " x")
    monkeypatch.setenv("RALIS_AUTH_PASSWORD", f"{signs} {signs}")
    assert load_settings().auth_password.get_secret_value() == f"{signs} {signs}"


def test_compose_gives_the_backend_its_own_settings_and_no_other_secret():
    compose = yaml.safe_load((REPOSITORY / "docker" / "docker-compose.yml").read_text())
    backend = compose["services"]["backend"]
    assert "env_file" not in backend
    of_ralis = {*setting_names()} - {"PROMETHEUS_MULTIPROC_DIR"}
    assert set(backend["environment"]) == of_ralis
    studio = compose["services"]["label-studio"]["environment"]
    public = backend["environment"]["LABEL_STUDIO_PUBLIC_URL"]
    assert public == studio["LABEL_STUDIO_HOST"]  # under which tasks name files
    assert "LABEL_STUDIO_PORT" in public
    assert "LABEL_STUDIO_PASSWORD" not in str(backend)


def test_from_a_folder_below_everything_lies_beside_the_env_file(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("RALIS_SEED=7\nRALIS_POLICIES_DIR=mine\n")
    below = tmp_path / "notes" / "deep"
    below.mkdir(parents=True)
    (below / ".env").write_text("OTHER_TOOL=1\n")  # of something else
    monkeypatch.chdir(below)
    settings = load_settings()
    assert settings.seed == 7
    assert (settings.data_dir, settings.policies_dir) == (tmp_path / ".ralis", tmp_path / "mine")
    assert settings.database_file == tmp_path / ".ralis" / "ralis.db"
    assert settings.has_own_database
    monkeypatch.setenv("RALIS_DATA_DIR", "here")
    assert load_settings().data_dir == Path("here")


def test_from_a_folder_below_a_data_folder_is_found_without_an_env_file(monkeypatch, tmp_path):
    (tmp_path / ".ralis").mkdir()
    (tmp_path / ".ralis" / "ralis.db").touch()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert load_settings().data_dir == tmp_path / ".ralis"


def test_a_data_folder_above_that_this_user_may_not_look_into_is_passed_over(monkeypatch, tmp_path):
    (tmp_path / ".ralis").mkdir()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    real = Path.is_file

    def is_file(path):
        if path.parent == tmp_path / ".ralis":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    assert load_settings().data_dir == Path(".ralis")


def test_what_somebody_else_left_in_a_folder_above_is_not_believed(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("LABEL_STUDIO_URL=http://evil.test\n")
    (tmp_path / ".ralis").mkdir()
    (tmp_path / ".ralis" / "ralis.db").touch()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    real = Path.stat

    def stat(path, **options):
        found = list(real(path, **options))
        found[4] = 54321
        return os.stat_result(found)

    monkeypatch.setattr(Path, "stat", stat)
    settings = load_settings()
    assert settings.label_studio_url == "http://localhost:8080"
    assert settings.data_dir == Path(".ralis")


def test_policies_that_come_with_the_backend_are_found_from_any_folder(tmp_path):
    assert policy_file("any", tmp_path / "policies").is_file()
    mine = tmp_path / "any.safetensors"
    mine.touch()
    assert policy_file("any", tmp_path) == mine
    assert policy_file("nowhere", tmp_path) == tmp_path / "nowhere.safetensors"


def test_bands_and_the_intensity_range_are_numbers(monkeypatch):
    assert (load_settings().bands, load_settings().intensity_range) == ((), None)
    monkeypatch.setenv("RALIS_BANDS", "4, 3,2")
    monkeypatch.setenv("RALIS_INTENSITY_RANGE", "-1000, 3000.5")
    assert load_settings().bands == (4, 3, 2)
    assert load_settings().intensity_range == (-1000, 3000.5)
    monkeypatch.setenv("RALIS_BANDS", "7")
    assert load_settings().bands == (7,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("RALIS_BANDS", value)
            for value in ("0,1,2", "1,2", "1,2,3,4", "r,g,b", "-1,2,3", "1;2;3")
        ),
        *(("RALIS_INTENSITY_RANGE", it) for it in ("4095", "5,5", "9,1", "nan,1", "0,inf", "a,b")),
    ],
)
def test_bands_and_ranges_that_mean_nothing_are_refused_with_an_example(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: expected .* for example"):
        load_settings()


def refuse_to_read(monkeypatch, refused_path):
    """Have a file refuse to be read."""
    real = Path.read_bytes
    refused = PermissionError(errno.EACCES, "Permission denied")

    def read_bytes(path):
        if path.absolute() == refused_path:
            raise refused
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)


@pytest.mark.parametrize("folder", ["", "below"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("RALIS_AUTH_TOKEN=secret\n".encode("utf-16"), "UTF-8"),
        ("RALIS_AUTH_TOKEN=secret\n".encode("utf-16-le"), "UTF-8"),
        ("# für das Labor\nRALIS_AUTH_TOKEN=secret\n".encode("latin-1"), "UTF-8"),
        (None, "cannot be read .Permission denied."),
    ],
)
def test_the_nearest_env_file_is_refused_where_it_cannot_be_read(
    monkeypatch, tmp_path, folder, content, told
):
    (tmp_path / ".env").write_text("RALIS_SEED=7\n")
    near = tmp_path / "near"
    (near / folder).mkdir(parents=True)
    (near / ".env").write_bytes(content or b"")
    if content is None:
        refuse_to_read(monkeypatch, near / ".env")
    monkeypatch.chdir(near / folder)
    with pytest.raises(SettingsError, match=rf"\.env (is no text in )?{told}; .*nearer") as error:
        load_settings()
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "variables"),
    [
        ("GREETING=grüß dich\n".encode("latin-1"), {}),
        ("GREETING=hello\n".encode("utf-16"), {}),
        (None, {"LABEL_STUDIO_API_KEY": "abc"}),
    ],
)
def test_another_programs_env_file_further_up_ends_no_command(
    monkeypatch, tmp_path, caplog, content, variables
):
    (tmp_path / ".env").write_bytes(content or b"")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    if content is None:
        refuse_to_read(monkeypatch, tmp_path / ".env")
        with pytest.raises(SettingsError, match="cannot be read"):
            load_settings()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert load_settings().data_dir == Path(".ralis")
    assert ("passed over" in caplog.text) == (content is None)


@pytest.mark.parametrize(
    ("content", "number"),
    [
        ("RALIS_AUTH_USER: sesame\n", 1),
        ("RALIS_SEED=3\n\n# a note\n\nRALIS_AUTH_PASSWORD='sesame\nLABEL_STUDIO_URL=http://h\n", 5),
        ('RALIS_SEED=3\nRALIS_AUTH_TOKEN="sesame" open\n', 2),
    ],
)
def test_a_line_of_an_env_file_that_would_be_dropped_is_refused(tmp_path, content, number):
    (tmp_path / ".env").write_text(content)
    with pytest.raises(SettingsError, match=rf"^line {number} of .*\.env cannot") as error:
        load_settings(tmp_path / ".env")
    assert "sesame" not in str(error.value)


def test_a_password_that_a_comment_or_an_unset_variable_would_cut_is_refused(tmp_path):
    for value in ("ses #ame", "ses${unset}ame"):
        (tmp_path / ".env").write_text(f"RALIS_AUTH_USER=u\nRALIS_AUTH_PASSWORD={value}\n")
        with pytest.raises(SettingsError, match=r"^line 2 of .*\.env has .*; expected "):
            load_settings(tmp_path / ".env")
    for line in ("RALIS_AUTH_USER=studio #1", "RALIS_DATABASE_URL=postgresql://u:p #w@h/d"):
        (tmp_path / ".env").write_text(f"{line}\n")
        with pytest.raises(SettingsError, match=r"^line 1 of .*\.env has a #"):
            load_settings(tmp_path / ".env")
    (tmp_path / ".env").write_text('RALIS_AUTH_USER=u\nRALIS_AUTH_PASSWORD="ses #ame" # both\n')
    found = load_settings(tmp_path / ".env").auth_password
    assert found is not None
    assert found.get_secret_value() == "ses #ame"


@pytest.mark.parametrize(
    "content",
    [
        "set -a\nGREETING: hello\n",
        "# RALIS_ settings are in ralis/.env\nbroken: x\n",
        "LABEL_STUDIO_HOST=${PUBLIC}\nfoo: bar\nLABEL_STUDIO_USERNAME\n",
    ],
)
@pytest.mark.parametrize("folder", ["", "below"])
def test_odd_lines_of_another_programs_env_file_are_not_ours_to_judge(
    monkeypatch, tmp_path, caplog, content, folder
):
    (tmp_path / ".env").write_text(content)
    (tmp_path / folder).mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / folder)
    assert load_settings().data_dir == Path(".ralis")
    assert not caplog.text


@pytest.mark.parametrize("folder", ["", "below"])
def test_a_path_may_begin_with_the_home_folder(monkeypatch, tmp_path, folder):
    home = tmp_path / "home"
    (tmp_path / "work" / folder).mkdir(parents=True)
    home.mkdir()
    (home / "ca.pem").touch()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SSL_CERT_FILE", "")
    (tmp_path / "work" / ".env").write_text(
        "RALIS_DATA_DIR=~/x\nRALIS_POLICIES_DIR=~/p\nSSL_CERT_FILE=~/ca.pem\n"
        "RALIS_ENCODER_WEIGHTS=~/w.safetensors\n"
    )
    monkeypatch.chdir(tmp_path / "work" / folder)
    settings = load_settings()
    assert (settings.data_dir, settings.policies_dir) == (home / "x", home / "p")
    assert (settings.ssl_cert_file, os.environ["SSL_CERT_FILE"]) == (
        home / "ca.pem",
        str(home / "ca.pem"),
    )
    assert settings.encoder_weights == str(home / "w.safetensors")


def test_a_byte_order_mark_hides_no_setting(tmp_path):
    (tmp_path / ".env").write_bytes("\ufeffRALIS_AUTH_TOKEN=sesame\nRALIS_SEED=3\n".encode())
    settings = load_settings()
    assert (settings.has_credentials, settings.seed) == (True, 3)


@pytest.mark.parametrize("name", setting_names())
@pytest.mark.parametrize("quote", ["'", '"'])
def test_quotes_that_docker_keeps_are_refused(monkeypatch, name, quote):
    monkeypatch.setenv(name, f"{quote}7{quote}")
    with pytest.raises(SettingsError, match=rf"{name}: is in quotes, .*docker run --env-file"):
        load_settings()


def test_quotes_of_the_env_file_are_dropped(tmp_path):
    (tmp_path / ".env").write_text('RALIS_DATA_DIR="a b"\nRALIS_AUTH_TOKEN=\'se"same\'\n')
    settings = load_settings()
    assert settings.data_dir == Path("a b")
    assert settings.auth_token.get_secret_value() == 'se"same'


@pytest.mark.parametrize("name", ["RALIS_CACHE_BYTES", "RALIS_MAX_REQUEST_BYTES"])
def test_sizes_are_read_whole_or_not_at_all(monkeypatch, name):
    field = setting_names()[name]
    for text, size in (
        ("4096", 4096),
        ("2GiB", 2 * 1024**3),
        ("1.5 kib", 1536),
        ("3mb", 3_000_000),
        ("9kB", 9000),
        ("2048B", 2048),
        (".5GiB", 1024**3 // 2),
        ("2  GiB", 2 * 1024**3),
    ):
        monkeypatch.setenv(name, text)
        assert getattr(load_settings(), field) == size
    for text in ("1,5GiB", "1 000 MB", "2.5.1GiB", "10 GB!", "1'000MB", "5GB-ish", "9" * 400, "-1"):
        monkeypatch.setenv(name, text)
        with pytest.raises(SettingsError, match=f"{name}: expected bytes, .* for example 2GiB"):
            load_settings()


@pytest.mark.parametrize(
    "name",
    [
        "RALIS_TRUST_ROUNDS",
        "RALIS_RANDOM_SHARE",
        "RALIS_REGIONS_PER_ROUND",
        "RALIS_IMPROVE_MINUTES",
        "RALIS_SUGGESTIONS_PER_IMAGE",
        "RALIS_SEED",
        "RALIS_SYNC_SECONDS",
        "RALIS_STALL_SECONDS",
        "RALIS_KEEP_VERSIONS",
        "RALIS_KEEP_EVENTS_DAYS",
    ],
)
def test_numbers_end_where_clocks_and_databases_do(monkeypatch, name):
    for value in ("inf", "nan", "1e300", "9" * 20, "-1"):
        monkeypatch.setenv(name, value)
        with pytest.raises(SettingsError, match=f"^{name}: "):
            load_settings()


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("localhost, *.Example.com", ("localhost", "*.example.com")),
        ("10.0.0.7,fd00::1,my_minio", ("10.0.0.7", "fd00::1", "my_minio")),
        ("bücher.example", ("xn--bcher-kva.example",)),
        ("*.Xn--bcher-kva.example", ("*.xn--bcher-kva.example",)),
        ("FD00:0::1", ("fd00::1",)),
    ],
)
def test_image_hosts_are_names_and_ip_addresses(monkeypatch, text, hosts):
    monkeypatch.setenv("RALIS_IMAGE_HOSTS", text)
    assert load_settings().image_hosts == hosts


@pytest.mark.parametrize(
    "text",
    [
        *("localhost:9000", "http://localhost", "//a", "a/b", "'a',b", "*", "*.", "a.*.b", "a b"),
        *("*a", ".a", "a.", "[::1]", "[::1]:9000", "a;b", "user@a"),
        *("10.0.0.7:9000", "cafe:9000", "1:2", ":", "::::", "010.0.0.7", "1.2.3", "xn--a"),
    ],
)
def test_image_hosts_that_no_address_has_are_refused_with_an_example(monkeypatch, text):
    monkeypatch.setenv("RALIS_IMAGE_HOSTS", text)
    with pytest.raises(SettingsError, match=r"^RALIS_IMAGE_HOSTS: expected names .*example\.com"):
        load_settings()


ADDRESSES = ["LABEL_STUDIO_URL", "LABEL_STUDIO_PUBLIC_URL", "RALIS_BACKEND_URL"]


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize(
    "address",
    [
        "http://localhost",
        "https://label-studio.example.com/ls/",
        "http://label_studio:8080/",
        "http://[fd00::1]:65535",
        "http://10.0.0.7:1",
        "http://ü.example",
        "HTTP://Host.",
    ],
)
def test_addresses_of_servers_are_taken(monkeypatch, name, address):
    monkeypatch.setenv(name, address)
    assert getattr(load_settings(), setting_names()[name]) == address.rstrip("/")


WRONG = [
    *("http://[", "http://h:x", "http://h:99999", "http://h:0", "http://a b", "http://h/a b"),
    *("http://", "http:///a", "http://:80", "http://h?", "http://h#", "http://h?x=1", "http://a,b"),
    *("http://-", "http://a..b", "http://.a", "http://h\\a", "http://h\x1b[31m", "http://h\ta"),
    *("ftp://h", "h:80", "http//h", "http://user:sesame@h:x", "http://\u2603\u20e3..x"),
    *("http://256.1.1.1", "http://xn--a", "http://user:sesame@h\\a"),
]


@pytest.mark.parametrize("name", [*ADDRESSES, "HTTP_PROXY", "HTTPS_PROXY"])
@pytest.mark.parametrize("address", WRONG)
def test_addresses_of_no_server_are_refused_without_their_password(monkeypatch, name, address):
    if "PROXY" in name and address == "h:80":
        return  # http://h:80
    monkeypatch.setenv(name, address)
    with pytest.raises(SettingsError, match=f"^{name}: expected .*http://") as error:
        load_settings()
    assert "sesame" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"),
        ("LABEL_STUDIO_PUBLIC_URL", "LABEL_STUDIO_API_KEY"),
        ("RALIS_BACKEND_URL", "RALIS_AUTH_USER and RALIS_AUTH_PASSWORD"),
    ],
)
def test_a_user_and_password_in_an_address_are_refused_and_their_place_is_named(
    monkeypatch, name, place
):
    for address in ("http://jane:sesame@h:9090", "http://sesame@h"):
        monkeypatch.setenv(name, address)
        with pytest.raises(SettingsError, match=f"^{name}: .*without user.*; {place}") as error:
            load_settings()
        assert "sesame" not in str(error.value)


@pytest.mark.parametrize(
    ("address", "credentials"),
    [
        ("http://CORP\\jane:pw@proxy.example:3128", ("CORP\\jane", "pw")),
        ("proxy:[p]w x@proxy.example:3128", ("proxy", "[p]w x")),
        ("http://jane:p%40%5Bw@proxy.example:3128", ("jane", "p@[w")),
    ],
)
def test_users_of_domains_and_passwords_with_brackets_reach_the_proxy(
    monkeypatch, address, credentials
):
    monkeypatch.setenv("HTTPS_PROXY", address)
    proxy = httpx.Proxy(load_settings().https_proxy.get_secret_value())
    assert (proxy.url.host, proxy.url.port) == ("proxy.example", 3128)
    assert proxy.raw_auth == tuple(part.encode() for part in credentials)


@pytest.mark.parametrize("value", ["x" * 5000, "/dev/null/x"])
def test_certificates_at_no_path_are_named(monkeypatch, value):
    monkeypatch.setenv("SSL_CERT_FILE", value)
    with pytest.raises(SettingsError, match=r"^SSL_CERT_FILE: there is no file"):
        load_settings()
