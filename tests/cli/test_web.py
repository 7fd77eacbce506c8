import socket
import threading

import pytest

from ralis_backend.cli.demo.label_studio import free_port
from ralis_backend.cli.web import check_port
from tests.cli.process import ralis


@pytest.mark.e2e
def test_a_port_in_use_is_one_line_and_exit_code_2(environment, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        answer = ralis(environment, tmp_path, "serve", "--port", port)
    assert answer.returncode == 2
    assert f"port {port}" in answer.stderr.splitlines()[-1]


def test_other_machines_are_not_served_without_credentials(environment, tmp_path):
    answer = ralis(environment, tmp_path, "serve", "--host", "0.0.0.0", "--port", str(free_port()))
    assert answer.returncode == 2
    assert "RALIS_AUTH_USER" in answer.stderr


def test_a_port_that_is_just_given_up_is_waited_for():
    port = free_port()
    with socket.socket() as ending:
        ending.bind(("127.0.0.1", port))
        ending.listen()
        with pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1 port {port}: Address"):
            check_port("127.0.0.1", port, patience_s=0.0)
        threading.Timer(0.3, ending.close).start()
        check_port("127.0.0.1", port, patience_s=30.0)
