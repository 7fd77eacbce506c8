from ralis_backend.app import attempts
from ralis_backend.app.attempts import MAX_FAILURES, MAX_FAILURES_OF_FRIENDS, WINDOW_S, Attempts


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_an_address_waits_after_too_many_failures_until_the_window_ends():
    clock = Clock()
    counted = Attempts(clock)
    for number in range(MAX_FAILURES):
        assert counted.wait_s("192.0.2.7") == 0
        assert counted.failed("192.0.2.7") == number + 1
    clock.now += 20
    assert counted.wait_s("192.0.2.7") == WINDOW_S - 20
    assert counted.wait_s("192.0.2.8") == 0
    clock.now += WINDOW_S
    assert counted.wait_s("192.0.2.7") == 0
    assert counted.failed("192.0.2.7") == 1


def test_who_has_the_whole_network_is_counted_once():
    counted = Attempts()
    for number in range(MAX_FAILURES):
        counted.failed(f"2001:db8:0:1::{number}")
    assert counted.wait_s("2001:db8:0:1:ffff::1") > 0
    assert counted.wait_s("2001:db8:0:2::1") == 0


def test_callers_of_ipv4_are_counted_apart_by_a_server_that_listens_on_ipv6():
    counted = Attempts()
    for _ in range(MAX_FAILURES):
        counted.failed("::ffff:203.0.113.9")
    assert counted.wait_s("::ffff:10.0.0.5") == 0
    assert counted.wait_s("203.0.113.9") > 0


def test_an_address_that_knows_the_credentials_is_not_shut_out_by_a_wrong_webhook():
    counted = Attempts()
    counted.succeeded("192.0.2.7")
    for _ in range(MAX_FAILURES_OF_FRIENDS - 1):
        counted.failed("192.0.2.7")
    assert counted.wait_s("192.0.2.7") == 0
    counted.failed("192.0.2.7")
    assert counted.wait_s("192.0.2.7") > 0


def test_only_so_many_addresses_are_remembered(monkeypatch):
    monkeypatch.setattr(attempts, "MAX_ADDRESSES", 3)
    counted = Attempts()
    for number in range(10):
        counted.failed(f"192.0.2.{number}")
    assert len(counted._addresses) == 3
