import signal
import socket
import stat

import pytest

from ralis_backend.cli.demo.workplace import Workplace, port_near, stopped_by_signals


def test_the_workplace_remembers_its_credentials_and_hides_them(tmp_path):
    first = Workplace.open(tmp_path / "demo")
    first.projects["abc"] = 3
    first.save()
    again = Workplace.open(tmp_path / "demo")
    assert again == first
    assert len(again.token) == 40
    mode = stat.S_IMODE((tmp_path / "demo/demo.json").stat().st_mode)
    assert mode == 0o600


def test_a_damaged_workplace_says_what_to_do(tmp_path):
    (tmp_path / "demo.json").write_text("{")
    with pytest.raises(ValueError, match="delete the folder"):
        Workplace.open(tmp_path)


def test_a_taken_port_is_avoided():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port_near(port) != port
    assert port_near(port) == port


def test_sigterm_ends_the_demo_like_ctrl_c():
    with pytest.raises(KeyboardInterrupt), stopped_by_signals():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
