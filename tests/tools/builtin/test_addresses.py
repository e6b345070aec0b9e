"""The address guard: public addresses only, in every notation and family."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.tools.builtin.addresses import AddressGuard

GUARD = AddressGuard()

REFUSED = {
    "0.0.0.0": "an unspecified",
    "0.1.2.3": "an unspecified",
    "127.0.0.1": "a loopback",
    "127.255.255.254": "a loopback",
    "10.1.2.3": "a private",
    "172.16.0.1": "a private",
    "172.31.255.255": "a private",
    "192.168.1.1": "a private",
    "169.254.169.254": "a link-local",
    "100.64.0.1": "a shared carrier",
    "100.100.100.200": "a shared carrier",
    "168.63.129.16": "a cloud metadata",
    "192.0.0.192": "a reserved",
    "198.18.0.1": "a reserved",
    "203.0.113.9": "a reserved",
    "224.0.0.1": "a multicast",
    "239.255.255.255": "a multicast",
    "240.0.0.1": "a reserved",
    "255.255.255.255": "a reserved",
    "::": "an unspecified",
    "::1": "a loopback",
    "::7f00:1": "a reserved",
    "::ffff:127.0.0.1": "an IPv4-mapped",
    "::ffff:8.8.8.8": "an IPv4-mapped",
    "fc00::1": "a private",
    "fd00:ec2::254": "a private",
    "fec0::1": "a private",
    "fe80::1": "a link-local",
    "fe80::1%eth0": "a link-local",
    "ff02::1": "a multicast",
    "2001:db8::1": "a reserved",
    "2001::7f00:1": "a tunnel",
    "2002:7f00:1::": "a tunnel",
    "64:ff9b::7f00:1": "a loopback",
    "64:ff9b::a9fe:a9fe": "a link-local",
    "64:ff9b:1::1": "a reserved",
    "5f00::1": "a reserved",
}
PUBLIC = ["8.8.8.8", "172.32.0.1", "100.128.0.1", "1.1.1.1", "2606:4700::1", "64:ff9b::808:808"]


@pytest.mark.parametrize(("address", "kind"), REFUSED.items())
def test_addresses_that_are_not_public_are_refused(address: str, kind: str) -> None:
    assert kind == GUARD.refused_kind(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_let_through(address: str) -> None:
    assert GUARD.refused_kind(address) is None


@pytest.mark.parametrize(
    "notation", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1", "localhost"]
)
def test_odd_notations_are_refused_by_what_the_resolver_makes_of_them(notation: str) -> None:
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(notation, 80)]
    assert GUARD.refusal(notation, found) == (
        f"{notation} has a loopback address; only public addresses may be reached."
    )


def test_one_address_that_is_not_public_refuses_the_host() -> None:
    refusal = GUARD.refusal("example.org", ["8.8.8.8", "10.0.0.7"])
    assert "example.org has a private address; only public addresses may be reached." == refusal
    assert GUARD.refusal("example.org", ["8.8.8.8"]) is None
    assert "example.org has no address." == GUARD.refusal("example.org", [])


def test_what_is_allowed_is_let_through_and_nothing_beside_it() -> None:
    guard = AddressGuard(allow=(ip_network("10.0.0.0/24"), ip_network("::1/128")))
    assert guard.refused_kind("10.0.0.9") is None
    assert guard.refused_kind("::1") is None
    assert "a private" == guard.refused_kind("10.0.1.9")
    assert "a loopback" == guard.refused_kind("127.0.0.1")


def test_what_is_no_address_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="localhost"):
        GUARD.refused_kind("localhost")


@given(st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address))
def test_no_address_python_knows_to_be_internal_passes(address: IPv4Address | IPv6Address) -> None:
    if GUARD.refused_kind(str(address)) is None and address not in ip_network("64:ff9b::/96"):
        assert not ip_address(str(address)).is_private
        assert not address.is_loopback
        assert not address.is_multicast
        assert not address.is_link_local
        assert not address.is_unspecified
