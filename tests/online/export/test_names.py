import unicodedata
from base64 import urlsafe_b64encode
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ralis_backend.online.export.names import MAX_BYTES, alike, safe_name, stem, unique_names

Row = namedtuple("Row", "id task_id ref is_deleted")


def names_of(*refs, gone=()):
    rows = [Row(i, i + 10, ref, i in gone) for i, ref in enumerate(refs)]
    return list(unique_names(rows).values())


def resolving(uri, task=7):
    return f"http://localhost:8080/tasks/{task}/resolve/?fileuri={urlsafe_b64encode(uri.encode()).decode()}"


def test_names_are_those_of_the_upload_and_safe():
    assert names_of(
        "/data/upload/3/1a2b3c4d-street%20one.jpg",
        "/data/local-files/?d=folder/sub/pic.final.png",
        "s3://bucket/some/key.jpeg",
        "https://example.com/..%2F..%2Fetc%2Fpasswd",
        "/data/upload/3/1a2b3c4d-.jpg",
    ) == ["street_one", "pic.final", "key", "passwd", "image"]


def test_cloud_images_have_their_own_names():
    assert names_of(
        resolving("s3://fields/2024/plot 1.png"),
        resolving("gs://fields/2024/plot 2.png", 8),
        resolving("azure-blob://fields/2024/plot 2.png", 9),
        resolving("s3://fields/50%25 #1?.png", 10),
    ) == ["plot_1", "plot_2", "plot_2-12", "50_25_1"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("写真12.png", "写真12"),
        ("зображення.jpg", "зображення"),
        ("हिन्दी.png", "हिन्दी"),
        ("ภาพถ่าย 3.tif", "ภาพถ่าย_3"),
        ("صورة.png", "صورة"),
        ("Straße–1.png", "Straße_1"),
        ("\U0001f33e\U0001f3fd field.png", "\U0001f33e\U0001f3fd_field"),
        ("e\u0301te\u0301.png", "\xe9t\xe9"),  # composed
    ],
)
def test_names_in_other_scripts_are_kept(name, expected):
    assert names_of(f"s3://bucket/{name}") == [expected]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CON.png", "image-CON"),
        ("nul.tar.png", "image-nul.tar"),
        ("com1.jpg", "image-com1"),
        ("COM\xb9.jpg", "image-COM\xb9"),
        ("\uff23\uff2f\uff2e.png", "image-\uff23\uff2f\uff2e"),
        ("console.jpg", "console"),
        (".hidden.png", "hidden"),
        ("..png", "image"),
        ("-rf.png", "rf"),
        ("a.png.", "a.png"),
        ("a\u202egnp.exe.png", "agnp.exe"),  # a mark that turns what follows
        ("a\x00b\nc.png", "a_b_c"),
        ('a:b|c<d>e"f?g*h\\i.png', "i"),
        ("\u3164\u2800.png", "image"),
        ("\u0301.png", "image"),
        ("", "image"),
        ("frame.0001", "frame.0001"),  # no suffix of an image
    ],
)
def test_names_that_some_system_would_refuse_are_changed(name, expected):
    assert names_of(f"s3://bucket/{name}") == [expected]


def test_names_that_collide_get_the_task_id():
    assert names_of("/u/a.jpg", "/u/A.png", "/u/a-12.jpg", "/v/a-12.png") == [
        "a", "A-11", "a-12", "a-12-13",
    ]  # fmt: skip


def test_names_that_a_file_system_takes_for_one_collide():
    assert names_of(
        "s3://b/straße.png", "s3://b/STRASSE.png", "s3://b/\ufb01eld.png", "s3://b/field.png",
        "s3://b/K.png", "s3://b/\u212a.png",
    ) == ["straße", "STRASSE-11", "\ufb01eld", "field-13", "K", "K-15"]  # fmt: skip


def test_a_task_without_an_address_does_not_stand_in_the_way():
    assert names_of("/u/a.jpg", "http://[::1/b.png", "", "/u/b.jpg") == ["a", "b", "image", "b-13"]


def test_long_names_are_cut_by_bytes_and_stay_unique():
    long = "写真" * 200
    first, second = names_of(f"s3://b/{long}1.png", f"s3://b/{long}2.png")
    assert first == "写真" * (MAX_BYTES // 6)
    assert second == f"{first}-11"


def test_a_name_stays_when_an_earlier_image_is_deleted():
    refs = ("/data/upload/3/11111111-a.png", "/data/upload/3/22222222-a.png")
    assert names_of(*refs) == names_of(*refs, gone={0}) == ["a", "a-11"]


def test_an_image_that_came_back_has_its_name_again():
    again = resolving("s3://b/a.png", 9)
    assert names_of(resolving("s3://b/a.png"), again, gone={0}) == ["a", "a"]
    assert names_of(resolving("s3://b/a.png"), again) == ["a", "a-11"]


@given(text=st.text())
def test_any_name_is_safe(text):
    name = safe_name(text)
    assert name == unicodedata.normalize("NFC", name)
    assert 0 < len(name.encode()) <= MAX_BYTES + len("image-")
    assert Path(name).name == name
    assert not name.startswith((".", "-", " "))
    assert not name.endswith((".", " "))
    assert all(c.isprintable() and c not in '<>:"/\\|?*' for c in name)
    assert safe_name(name) == name


@given(refs=st.lists(st.sampled_from(["a", "A", "a-11", "a-12", "\xe1", "a\u0301", "image", ""])))
def test_any_names_are_unique(refs):
    names = names_of(*(f"s3://{i}/{ref}.png" for i, ref in enumerate(refs)))
    assert len({alike(name) for name in names}) == len(refs)


def test_names_are_files_of_this_system(tmp_path):
    for name in names_of("s3://b/写真.png", "s3://b/" + "\U0001f33e" * 300, "s3://b/CON"):
        (tmp_path / f"{name}-123456789012.jpeg").write_bytes(b"")
    assert len(list(tmp_path.iterdir())) == 3


def test_only_the_suffix_of_an_image_is_dropped():
    assert stem("a.tar.PNG") == "a.tar"
    assert stem("frame.0001") == "frame.0001"
    assert stem("") == ""
