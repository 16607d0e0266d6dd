"""Where a repository is to be had: hosts and schemes in the order in which they are asked.

Docker's rules: docker.io is served by registry-1.docker.io; https is the only way, except on
loopback and for hosts that the settings call insecure, where a certificate need not hold and plain http is
tried when https fails. Mirrors of the settings come first.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knarr.config import RegistrySettings

HUB = "registry-1.docker.io"
SEARCH_HUB = "index.docker.io"


class Endpoint(NamedTuple):
    """One way to reach a registry."""

    domain: str  # by which its credentials are looked up
    host: str  # host[:port] to connect to
    scheme: str
    insecure: bool
    mirror: bool = False


def endpoints(domain: str, settings: Mapping[str, RegistrySettings]) -> list[Endpoint]:
    """The endpoints for the domain of a reference, in order."""
    own = settings.get(domain)
    found = [way._replace(mirror=True) for mirror in (own.mirrors if own else []) for way in _ways(mirror, settings)]
    return found + _ways(domain, settings)


def _ways(address: str, settings: Mapping[str, RegistrySettings]) -> list[Endpoint]:
    scheme, separator, rest = address.partition("://")
    domain = (rest if separator else address).rstrip("/")
    host = HUB if domain in {"docker.io", "index.docker.io"} else domain
    if separator:
        return [Endpoint(domain, host, scheme, _is_insecure(domain, settings))]
    if _is_insecure(domain, settings):
        return [Endpoint(domain, host, "https", insecure=True), Endpoint(domain, host, "http", insecure=True)]
    return [Endpoint(domain, host, "https", insecure=False)]


def _is_insecure(domain: str, settings: Mapping[str, RegistrySettings]) -> bool:
    own = settings.get(domain)
    return (own is not None and own.insecure) or is_loopback(domain)


def is_loopback(domain: str) -> bool:
    """Whether host[:port] is this machine itself: localhost, 127.0.0.0/8, ::1."""
    host = domain[1:].partition("]")[0] if domain.startswith("[") else domain.partition(":")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
