from ralis_backend.online.file_names import uploaded_name


def test_the_uploaded_name_is_found_again():
    assert uploaded_name("/data/upload/12/0a1b2c3d-street_001.png") == "street_001.png"
    assert uploaded_name("/data/upload/12/0a1b2c3d-a%20b.png") == "a b.png"
    assert uploaded_name("https://example.com/pics/plain.png?x=1") == "plain.png"


def test_local_files_are_named_in_the_query_and_decoded_once():
    assert uploaded_name("/data/local-files/?d=photos%2Fa%20b.png") == "a b.png"
    assert uploaded_name("/data/local-files/?d=a%2520b.png") == "a%20b.png"


def test_what_is_no_address_has_a_name_still():
    assert uploaded_name("http://[::1/folder/a.png") == "a.png"
    assert uploaded_name("") == ""
