import pytest

from ralis_backend.hosts import host_form, host_of, is_this_machine


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("Host.", "host"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("XN--bcher-kva.example", "xn--bcher-kva.example"),
        ("faß.de", "xn--fa-hia.de"),
        ("xn--n3h.net", "xn--n3h.net"),
        ("label_studio", "label_studio"),
        ("10.0.0.7", "10.0.0.7"),
        ("[FD00:0::1]", "fd00::1"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
    ],
)
def test_a_host_has_one_form(written, form):
    assert host_form(written) == form
    assert host_of(f"http://{f'[{written}]' if written[0] == ':' else written}:80/a") == form


@pytest.mark.parametrize("written", ["a/b", "user@host", "xn--a", "☃.net", "a b", "10.0.0.0/8"])
def test_what_is_no_host_is_refused(written):
    with pytest.raises(ValueError):  # noqa: PT011
        host_form(written)


def test_this_machine_is_known_by_its_name_and_addresses():
    assert all(map(is_this_machine, ("localhost", "127.9.9.9", "::1", "[::ffff:127.0.0.1]")))
    assert not any(map(is_this_machine, ("localhost.test", "10.0.0.7", "", "::2")))
