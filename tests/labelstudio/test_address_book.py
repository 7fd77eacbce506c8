from __future__ import annotations

import pytest

from ralis_backend.labelstudio.address_book import MOST_ADDRESSES, AddressBook, place_of


def test_what_one_process_learns_another_knows(tmp_path):
    path = tmp_path / "new" / "addresses.json"
    reader = AddressBook(path)
    assert reader.known() == ()
    AddressBook(path).offer("https://label.example.com/ls")
    assert reader.known() == ("https://label.example.com/ls",)
    AddressBook(path).offer("http://other:8080")
    assert reader.known() == ("https://label.example.com/ls", "http://other:8080")


@pytest.mark.parametrize(
    "hostname",
    [
        *(None, 7, "", "/ls", "label.example.com", "ftp://h", "http://", "http://user:pw@h"),
        *("http://h/?a=1", "http://h\n", "http://h:99999", "http://" + "a" * 999, ["http://h"]),
    ],
)
def test_what_is_no_address_is_not_kept(tmp_path, hostname):
    book = AddressBook(tmp_path / "addresses.json")
    book.offer(hostname)
    assert book.known() == ()
    assert not (tmp_path / "addresses.json").exists()


def test_the_list_is_bounded_and_the_newest_stay(tmp_path):
    book = AddressBook(tmp_path / "addresses.json")
    for number in range(30):
        book.offer(f"http://host-{number}")
    assert len(book.known()) == MOST_ADDRESSES
    assert book.known()[-1] == "http://host-29"


def test_the_same_place_is_written_once(tmp_path):
    path = tmp_path / "addresses.json"
    book = AddressBook(path)
    book.offer("https://label.example.com/ls")
    written = path.stat().st_mtime_ns
    for same in (
        "http://label.example.com",
        "https://LABEL.example.com:443/",
        "http://label.example.com:80",
    ):
        book.offer(same)
    assert path.stat().st_mtime_ns == written


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"7", b'["file:///etc", 3, null]', b"\xff"])
def test_a_damaged_file_is_an_empty_one_and_is_mended(tmp_path, content):
    path = tmp_path / "addresses.json"
    path.write_bytes(content)
    book = AddressBook(path)
    assert book.known() == ()
    book.offer("http://ls.test")
    assert AddressBook(path).known() == ("http://ls.test",)


def test_places_are_host_and_port():
    assert place_of("http://[::1]:8080/ls") == ("::1", 8080)
    assert place_of("https://Host./ls") == ("host", 443)
    assert place_of("https://bücher.test/ls") == place_of("http://xn--bcher-kva.test/ls")
    assert place_of("http://[fd00:0::1]:8080") == ("fd00::1", 8080)
    assert place_of("/data/upload/1/a.png") is None
