from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ralis_backend.online.file_names import MAX_ADDRESS, place, shown_address, uploaded_name


def resolving(uri):
    return f"/tasks/7/resolve/?fileuri={urlsafe_b64encode(uri.encode()).decode()}"


def test_the_uploaded_name_is_found_again():
    assert uploaded_name("/data/upload/12/0a1b2c3d-street_001.png") == "street_001.png"
    assert uploaded_name("/ls/data/upload/12/0a1b2c3d-a%20b.png") == "a b.png"
    assert uploaded_name("https://example.com/pics/plain.png?x=1") == "plain.png"


def test_only_uploads_have_a_prefix():
    assert uploaded_name("https://example.com/pics/0a1b2c3d-a.png") == "0a1b2c3d-a.png"
    assert uploaded_name("s3://bucket/upload/12/0a1b2c3d-a.png") == "a.png"


def test_local_files_are_named_in_the_query_and_decoded_once():
    assert uploaded_name("/data/local-files/?d=photos%2Fa%20b.png") == "a b.png"
    assert uploaded_name("/data/local-files/?d=a%2520b.png") == "a%20b.png"
    assert uploaded_name("https://host/ls/data/local-files/?d=scans/001") == "001"


@pytest.mark.parametrize(
    "uri",
    ["s3://b/f/写真 1.png", "gs://b/写真 1.png", "azure-blob://b/写真 1.png", "s3://b/写真 1.png"],
)
def test_cloud_files_are_named_in_base64(uri):
    assert uploaded_name(resolving(uri)) == "写真 1.png"
    assert place(f"https://host/ls{resolving(uri)}") == uri
    without_padding = resolving(uri).rstrip("=")
    assert uploaded_name(without_padding) == "写真 1.png"


def test_what_is_no_base64_is_taken_as_older_releases_wrote_it():
    assert uploaded_name("/tasks/7/presign/?fileuri=s3%3A%2F%2Fb%2Fa%20b.png") == "a b.png"
    assert uploaded_name("/tasks/7/resolve/?fileuri=%%%") == "%%%"
    assert uploaded_name("/tasks/7/resolve/?fileuri=AAEC") == "AAEC"


def test_a_bucket_s_key_is_taken_as_it_is():
    assert uploaded_name("s3://bucket/50%25#1?.png") == "50%25#1?.png"


def test_a_name_in_a_query_counts_where_the_path_has_none():
    assert uploaded_name("https://host/download?token=1&file=photos/a.png") == "a.png"
    assert uploaded_name("https://host/get?url=https://x/y.jpg?sig=1") == "y.jpg"
    assert uploaded_name("https://host/a.png?thumb=b.png") == "a.png"
    assert uploaded_name("https://drive.example/uc?id=17") == "uc"
    assert uploaded_name("https://host/a.png;jsessionid=17") == "a.png"


def test_what_is_no_address_has_a_name_still():
    assert uploaded_name("http://[::1/folder/a.png?token=1") == "a.png"
    assert uploaded_name("C:\\photos\\a.png") == "a.png"
    assert uploaded_name("data:image/png;base64,iVBORw0KGgo=") == ""
    assert uploaded_name("") == ""


@pytest.mark.parametrize(
    ("reference", "shown"),
    [
        ("/data/upload/3/1a2b3c4d-a.png", "/data/upload/3/1a2b3c4d-a.png"),
        ("/data/local-files/?d=set%2F1.jpg", "/data/local-files/?d=set/1.jpg"),
        (resolving("s3://bucket/写真.png"), "s3://bucket/写真.png"),
        (resolving("https://a.blob.example/c/a.png?sv=1&sig=s3"), "https://a.blob.example/c/a.png"),
        ("https://u:pw@host:8443/a.png?X-Amz-Signature=s3#t=s3", "https://host:8443/a.png"),
        ("https://host/get?id=17&apikey=s3&KEY=s3", "https://host/get?id=17"),
        (
            "https://host/get?url=https://u:pw@x/y.png?sig=s3",
            "https://host/get?url=https://x/y.png",
        ),
        ("https://host/a.png;jsessionid=s3", "https://host/a.png"),
        ("data:image/png;base64,iVBORw0KGgo=", "data:image/png;base64"),
        ("http://u:pw@[::1/a.png?token=s3", "[::1/a.png"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_what_opens_it(reference, shown):
    assert shown_address(reference) == shown


@given(reference=st.text() | st.text(alphabet="s3://?#&=%;@[]:.pngdatfileuri,AZ"))
def test_any_reference_has_a_name_and_an_address(reference):
    assert "/" not in uploaded_name(reference)
    assert len(shown_address(reference)) <= MAX_ADDRESS
    shown_address(f"https://user:pa55word@host/{reference}").index("https://host/")
