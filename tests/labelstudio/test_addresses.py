from __future__ import annotations

import ipaddress

import pytest

from ralis_backend.labelstudio.addresses import may_connect

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "2606:4700::1111",
    "64:ff9b::808:808",
    "2002:808:808::1",
    "2600::5efe:8.8.8.8",
]
PRIVATE = [
    *("10.0.0.5", "172.31.255.255", "192.168.1.1", "127.0.0.1", "127.255.255.254"),
    *("100.64.0.1", "100.127.255.255", "192.0.0.8", "192.0.0.9", "192.0.2.7", "198.18.0.1"),
    *("198.51.100.7", "203.0.113.7", "192.88.99.1", "192.31.196.1", "192.52.193.1"),
    *("192.175.48.1", "::1", "fc00::1", "fd12:3456::1", "fec0::1", "100::1", "2001:db8::1"),
    *("3fff::1", "5f00::1", "4000::1", "2001:2::1", "2001:10::1", "2001:20::1", "100:0:0:1::1"),
    *("64:ff9b:1::1", "64:ff9b:1:a00:5::", "64:ff9b:1::808:808", "2620:4f:8000::1"),
    # carried by IPv6
    *("::127.0.0.1", "::10.0.0.1", "::ffff:10.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b::a00:5"),
    *("2002:a00:5::1", "2002:7f00:1::", "2600::5efe:7f00:1", "2600::200:5efe:a00:1"),
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
]
NEVER = [
    *("0.0.0.0", "0.1.2.3", "::", "169.254.169.254", "fe80::1", "fe80::1%eth0", "febf::1"),
    *("224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "ff02::1"),
    *("192.0.0.192", "100.100.100.200", "168.63.129.16", "fd00:ec2::254"),
    *("::169.254.169.254", "::ffff:169.254.169.254", "::ffff:0.0.0.0", "64:ff9b::a9fe:a9fe"),
    *("2002:a9fe:a9fe::1", "64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1::a9fe:a9fe"),
    *("2600::5efe:a9fe:a9fe", "64:ff9b::e000:1", "::ffff:0:169.254.169.254"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_read(address):
    assert may_connect(address, is_named=False)
    assert may_connect(address, is_named=True)


@pytest.mark.parametrize("address", PRIVATE)
def test_special_addresses_are_read_only_where_the_operator_named_the_host(address):
    assert not may_connect(address, is_named=False)
    assert may_connect(address, is_named=True)


@pytest.mark.parametrize("address", NEVER)
def test_link_local_metadata_and_multicast_addresses_are_never_read(address):
    assert not may_connect(address, is_named=False)
    assert not may_connect(address, is_named=True)


@pytest.mark.parametrize("inside", ["10.1.2.3", "127.0.0.1", "192.168.7.8", "100.64.9.9"])
def test_an_ipv4_address_counts_wherever_an_ipv6_address_carries_it(inside):
    bits = int(ipaddress.IPv4Address(inside))
    high, low = bits >> 16, bits & 0xFFFF
    forms = ["::{:x}:{:x}", "::ffff:{:x}:{:x}", "::ffff:0:{:x}:{:x}", "64:ff9b::{:x}:{:x}"]
    forms += ["2002:{:x}:{:x}::1", "2a00::5efe:{:x}:{:x}", "64:ff9b:1::{:x}:{:x}"]
    assert not any(may_connect(form.format(high, low), is_named=False) for form in forms)


def test_what_python_calls_not_global_is_not_read_either():
    for number in range(0, 2**32, 2**32 // 5000):
        ip = ipaddress.IPv4Address(number)
        assert ip.is_global or not may_connect(str(ip), is_named=False)


def test_what_is_no_address_is_refused():
    with pytest.raises(ValueError, match="bad"):
        may_connect("bad", is_named=True)
