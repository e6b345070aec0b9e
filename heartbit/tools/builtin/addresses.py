"""Which network addresses a model may make us connect to: public ones only. No I/O here.

A name is resolved by the caller, every address it has is checked here, and the connection must then
go to the address that was checked: a name that is resolved again may lead elsewhere.
The networks are listed here, not asked of `ipaddress`, whose answers differ between the versions
of Python and know neither clouds' metadata servers nor addresses that embed an IPv4 address.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_KINDS = {
    "an unspecified": ("0.0.0.0/8", "::/128"),
    "a loopback": ("127.0.0.0/8", "::1/128"),
    "a private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10"),
    "a link-local": ("169.254.0.0/16", "fe80::/10"),
    "a shared carrier": ("100.64.0.0/10",),
    "a cloud metadata": ("168.63.129.16/32",),
    "a multicast": ("224.0.0.0/4", "ff00::/8"),
    "an IPv4-mapped": ("::ffff:0:0/96",),
    "a tunnel": ("192.88.99.0/24", "2001::/32", "2002::/16"),
    "a reserved": (
        "192.0.0.0/24",
        "192.0.2.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "240.0.0.0/4",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
    ),
}
_REFUSED = tuple(
    (ip_network(network), kind) for kind, networks in _KINDS.items() for network in networks
)
_PUBLIC_IPV6 = IPv6Network("2000::/3")
# A gateway on IPv6-only networks: the last four bytes are the IPv4 address that is reached.
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, kw_only=True, slots=True)
class AddressGuard:
    """Lets through public addresses and, beyond them, those in `allow`."""

    allow: tuple[Network, ...] = ()

    def refused_kind(self, address: str) -> str | None:
        """What kind of address is refused ("a loopback"), or None if it may be connected to.

        Raises ValueError if `address` is not a numeric address as a resolver returns it.
        """
        found = ip_address(address)
        if any(found in network for network in self.allow):
            return None
        return _refused_kind(found)

    def refusal(self, host: str, addresses: Iterable[str]) -> str | None:
        """Why `host` with these `addresses` is refused, as a sentence, or None.

        One address that is not public is enough: which of them is used would be chance. The
        sentence does not repeat addresses, which may be secrets of an internal network.
        """
        kinds = [self.refused_kind(address) for address in addresses]
        kind = next((kind for kind in kinds if kind is not None), None)
        if kind is not None:
            return f"{host} has {kind} address; only public addresses may be reached."
        return None if kinds else f"{host} has no address."


def _refused_kind(address: Address) -> str | None:
    if isinstance(address, IPv6Address) and address in _NAT64:
        return _refused_kind(IPv4Address(int(address) & 0xFFFFFFFF))
    for network, kind in _REFUSED:
        if address in network:
            return kind
    if isinstance(address, IPv6Address) and address not in _PUBLIC_IPV6:
        return "a reserved"
    return None
