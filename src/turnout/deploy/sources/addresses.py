"""Which addresses may be connected to: those of the public internet, and of hosts that the operator names."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from turnout.core.errors import SourceFailed

#: Addresses in which another one is wrapped, which is where a packet would end up.
_WRAPPING = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96")))
#: Not for the public, although the standard library of some Python versions calls them global.
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            *("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "224.0.0.0/4"),
            *("240.0.0.0/4", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "100::/64", "2001:db8::/32"),
            *("3fff::/20", "5f00::/16"),
        ),
    )
)
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_listed(host: str, port: int, hosts: Iterable[str]) -> bool:
    """Whether the operator named this host ("name", "name:port", "[::1]:port"); no names below it are meant."""
    name = host.lower().rstrip(".")
    for listed in hosts:
        one = listed.lower().strip()
        bare = one.strip("[]").rstrip(".")
        if name == bare or one in {f"{name}:{port}", f"[{name}]:{port}"}:
            return True
    return False


def connectable(host: str, port: int, *, listed: bool) -> list[tuple[int, tuple[str, int]]]:
    """The addresses of a host, as (family, (address, port)), all of them allowed.

    listed: the operator named the host, so it may be on this machine or a private network; never link-local, where
    clouds keep credentials. Connect to what is returned and do not ask for the name again: the answer may be another.
    Raises SourceFailed if one address is not allowed, or (retryable) if the name is not known.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as problem:
        is_passing = problem.errno in {socket.EAI_AGAIN, socket.EAI_NONAME}
        raise SourceFailed(f"the host {host!a} is not known: {problem.strerror}", retryable=is_passing) from None
    except (UnicodeError, ValueError, OSError):
        raise SourceFailed(f"{host[:120]!a} is not the name of a host") from None
    addresses: list[tuple[int, tuple[str, int]]] = []
    for family, _, _, _, where in found:
        text = str(where[0])
        if refused := _refusal(text, listed=listed):
            raise SourceFailed(
                f"{host!a} is at {text}, which is {refused}; nothing is fetched from there"
                + (
                    ""
                    if listed or refused == _LINK_LOCAL
                    else f". If that is meant, allow the host by name (--allow-host {host})"
                )
            )
        if family in {socket.AF_INET, socket.AF_INET6}:
            addresses.append((family, (text, port)))
    if not addresses:
        raise SourceFailed(f"the host {host!a} has no address")
    return addresses


_LINK_LOCAL = "an address of the link itself, where clouds keep credentials"


def _refusal(text: str, *, listed: bool) -> str:
    """Why an address is refused; "" if it is not."""
    bare = text.partition("%")[0]
    try:
        addresses = list(_unwrapped(ipaddress.ip_address(bare)))
    except ValueError:
        return "no address that is understood here"
    for address in addresses:
        if address.is_link_local or "%" in text or str(address) == "fd00:ec2::254":
            return _LINK_LOCAL
        if address.is_multicast or address.is_unspecified:
            return "no address of one machine"
    if listed:
        return ""
    for address in addresses:
        if address.is_loopback:
            return "this machine itself"
        if not address.is_global or any(
            address in network for network in _NOT_PUBLIC if network.version == address.version
        ):
            return "on a private or reserved network"
    return ""


def _unwrapped(address: _Address) -> Iterable[_Address]:
    """The address, and those it carries inside: mapped, 6to4, Teredo, NAT64."""
    yield address
    if isinstance(address, ipaddress.IPv6Address) and not address.is_loopback and not address.is_unspecified:
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if any(address in network for network in _WRAPPING):
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        yield from (one for one in inner if one is not None)
