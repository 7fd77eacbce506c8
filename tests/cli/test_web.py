import socket
import threading

import pytest

from ralis_backend.cli import web
from ralis_backend.cli.demo.label_studio import free_port
from ralis_backend.cli.web import check_port


def test_a_port_in_use_is_waited_for_a_little_and_then_named(refused, monkeypatch):
    monkeypatch.setattr(web.check_port, "__defaults__", (0.3,))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        told = refused("serve", "--port", port).splitlines()
    assert f"port {port} is in use" in told[-2]
    assert f"cannot listen on 127.0.0.1 port {port}" in told[-1]


def test_other_machines_are_not_served_without_credentials(refused):
    told = refused("serve", "--host", "0.0.0.0", "--port", str(free_port()))
    assert "RALIS_AUTH_USER" in told


def test_a_port_that_is_just_given_up_is_waited_for():
    port = free_port()
    with socket.socket() as ending:
        ending.bind(("127.0.0.1", port))
        ending.listen()
        with pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1 port {port}: Address"):
            check_port("127.0.0.1", port, patience_s=0.0)
        threading.Timer(0.3, ending.close).start()
        check_port("127.0.0.1", port, patience_s=30.0)


@pytest.mark.parametrize("host", ["256.1.1.1", "", "192.0.2.1", "a..b"])
def test_a_host_that_is_not_of_this_machine_is_not_a_matter_of_the_port(host):
    with pytest.raises(ValueError, match=r"cannot listen on .*with --host, for example") as error:
        check_port(host, free_port(), patience_s=0.0)
    assert "--port" not in str(error.value)
