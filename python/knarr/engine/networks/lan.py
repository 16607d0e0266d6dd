"""Networks on one of the host's own interfaces: macvlan and ipvlan. What may be asked for, and what follows from it.

Containers there are machines on the host's wire: nothing is published for them, and their way out is the wire's own
router, where one is named. The interface (`parent`) is there, or is made by the supervisor: a VLAN (`eth0.10`), or,
where none is named, one that leads nowhere. The supervisor marks what it makes, and removes nothing else.
"""

from __future__ import annotations

import fcntl
import re
import socket
import struct
from typing import TYPE_CHECKING, Any

from knarr.errors import InvalidArgument, PermissionDenied, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from knarr.store.containers import Endpoint
    from knarr.store.networks import NetworkRecord

__all__ = ["DRIVERS", "adapt", "check_options", "check_parent", "is_internal", "mtu_of", "parent_of", "wire"]

PARENT = "parent"
FLAG = "ipvlan_flag"
MTU = "com.docker.network.driver.mtu"
DRIVERS = {"macvlan": "macvlan_mode", "ipvlan": "ipvlan_mode"}
"""The option that says how containers share the interface."""
MODES = {
    "macvlan": ("bridge", "private", "vepa", "passthru"),
    "ipvlan": ("l2", "l3", "l3s"),
}  # the first is the default
FLAGS = ("bridge", "private", "vepa")
ROUTED = ("l3", "l3s")  # modes without neighbours: no next hop, no MAC address to ask for
DUMMY = {"macvlan": "dm-", "ipvlan": "di-"}
_INTERFACE = re.compile(r"[^/\s\0]+")
_NAME_BYTES = 15
_SIOCGIFMTU = 0x8921
_VLAN_IDS = range(1, 4095)


def check_options(driver: str, options: dict[str, str]) -> None:
    """Raise for options that there are not, and for values that they cannot have."""
    known = {PARENT, MTU, DRIVERS[driver]} | ({FLAG} if driver == "ipvlan" else set())
    for name in options:
        if name not in known:
            raise Unsupported(
                f"the option {name} of a {driver} network is not supported by knarr: leave it out "
                f"(those that are: {', '.join(sorted(known))})"
            )
    if (mode := options.get(DRIVERS[driver])) and mode not in MODES[driver]:
        raise InvalidArgument(
            f"requested {driver} mode '{mode}' is not valid, '{MODES[driver][0]}' mode is the {driver} driver default "
            f"(it is one of {', '.join(MODES[driver])})"
        )
    if (flag := options.get(FLAG)) and flag not in FLAGS:
        raise InvalidArgument(
            f"requested ipvlan flag '{flag}' is not valid, 'bridge' is the ipvlan driver default "
            f"(it is one of {', '.join(FLAGS)})"
        )
    if options.get(PARENT) == "lo":
        raise InvalidArgument(f"loopback interface is not a valid {driver} parent link")


def check_parent(driver: str, options: dict[str, str], others: Iterable[NetworkRecord]) -> None:
    """Raise where the interface cannot be had: PermissionDenied where another network has it, InvalidArgument."""
    parent = options.get(PARENT)
    if not parent:
        return
    for other in others:
        if other.driver in DRIVERS and parent_of(other) == parent:
            _check_shared(driver, _mode(driver, options), parent, other)
    base = _base_of(parent)
    if (mtu := mtu_of(options)) is not None and mtu > (most := _mtu_of_interface(base)):
        raise InvalidArgument(f"{MTU} {mtu} is above the {most} bytes of the parent interface {base}")


def _check_shared(driver: str, mode: str, parent: str, other: NetworkRecord) -> None:
    if other.driver != driver:
        raise PermissionDenied(
            f"{other.driver} network {other.name} is already using parent interface {parent}: an interface carries "
            f"macvlan or ipvlan, not both; give another parent"
        )
    if driver == "ipvlan":
        raise PermissionDenied(
            f"network {other.name} is already using parent interface {parent}: give another one, such as a VLAN of it"
        )
    if mode == "passthru":
        raise PermissionDenied(
            f"cannot use mode passthru, macvlan network {other.name} is already using parent interface {parent}"
        )
    if _mode(other.driver, other.options) == "passthru":
        raise PermissionDenied(
            f"macvlan network {other.name} is already using parent interface {parent} in mode passthru"
        )


def _base_of(parent: str) -> str:
    """The interface that is there: the parent itself, or the one that it is to be a VLAN of."""
    if _exists(parent):
        return parent
    if "." not in parent:
        raise InvalidArgument(
            f"invalid subinterface vlan name {parent}, example formatting is eth0.10: "
            "this host has no interface of that name either"
        )
    parts = parent.split(".")
    if len(parts) != 2:
        raise InvalidArgument(
            f"required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received {parent}"
        )
    base, number = parts
    if not (number.isascii() and number.isdigit()):
        raise InvalidArgument(f"unable to parse a valid vlan id from: {number} (ex. eth0.10 for vlan 10)")
    if not _exists(base):
        raise InvalidArgument(f"-o parent interface was not found on the host: {base}")
    if int(number) not in _VLAN_IDS:
        raise InvalidArgument(f"vlan id must be between 1-4094, received: {int(number)}")
    if len(parent.encode()) > _NAME_BYTES:
        raise InvalidArgument(f"invalid parent {parent}: an interface's name has at most {_NAME_BYTES} bytes")
    return base


def _exists(interface: str) -> bool:
    if not _INTERFACE.fullmatch(interface) or len(interface.encode()) > _NAME_BYTES:
        return False
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True


def _mtu_of_interface(interface: str) -> int:
    """netdevice(7), SIOCGIFMTU: of this network namespace, which /sys need not show."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        answer = fcntl.ioctl(asking, _SIOCGIFMTU, struct.pack("16si20x", interface.encode(), 0))
    mtu: int = struct.unpack("16si20x", answer)[1]
    return mtu


def mtu_of(options: dict[str, str]) -> int | None:
    """The MTU that is asked for."""
    return int(options[MTU]) if MTU in options else None


def _mode(driver: str, options: dict[str, str]) -> str:
    return options.get(DRIVERS[driver]) or MODES[driver][0]


def parent_of(record: NetworkRecord) -> str:
    """The name of a network's interface."""
    return record.options.get(PARENT) or f"{DUMMY[record.driver]}{record.id[:12]}"


def is_internal(record: NetworkRecord) -> bool:
    """Whether there is no way out: it was asked for, or the network's interface leads nowhere."""
    return record.internal or not record.options.get(PARENT)


def wire(record: NetworkRecord) -> dict[str, Any]:
    """A network, as the supervisor is told of it."""
    driver, options = record.driver, record.options
    return {
        "driver": driver,
        "parent": {"name": parent_of(record), "dummy": not options.get(PARENT)},
        "mode": _mode(driver, options),
        "flag": (options.get(FLAG) or FLAGS[0]) if driver == "ipvlan" else None,
        "mtu": mtu_of(options),
        "gateway": record.gateway or None,
        "gateway6": record.gateway6 or None,
        "internal": is_internal(record),
    }


def adapt(endpoint: Endpoint, record: NetworkRecord) -> None:
    """Make an endpoint that has its address what it is on such a network."""
    endpoint["lan"] = True
    endpoint["leads_out"] = not is_internal(record)
    if is_internal(record) or _mode(record.driver, record.options) in ROUTED:
        endpoint["gateway"] = ""
        if "gateway6" in endpoint:
            endpoint["gateway6"] = ""
    if record.driver == "ipvlan":
        endpoint["mac"] = ""  # that of the interface
