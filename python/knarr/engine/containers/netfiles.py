"""The files that a container finds its way by: hosts, hostname, resolv.conf. Written anew at each start."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from knarr.store.containers import ContainerRecord

__all__ = ["hosts", "resolv_conf", "write"]

HOSTS = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
RESOLVER = "127.0.0.11"  # where the engine answers, inside of containers on user-defined networks
PUBLIC_DNS = ["8.8.8.8", "8.8.4.4"]  # where the host names no servers but on its own loopback
PUBLIC_DNS6 = ["2001:4860:4860::8888", "2001:4860:4860::8844"]
STUB = "/run/systemd/resolve/resolv.conf"  # the servers behind systemd-resolved's stub


def hosts(record: ContainerRecord, gateways: list[str], linked: str = "") -> str:
    """/etc/hosts: loopback, what was added, linked containers' lines, and the container's own addresses.

    gateways: the host's addresses, which `host-gateway` stands for.
    """
    lines = [HOSTS]
    for entry in record.host["ExtraHosts"] or ():
        name, _, address = entry.replace("=", ":", 1).partition(":")
        addresses = gateways if address == "host-gateway" else [address.strip("[]")]
        lines += [f"{one}\t{name}\n" for one in addresses]
    lines.append(linked)
    hostname = record.config["Hostname"]
    domain = record.config["Domainname"]
    full = f"{hostname}.{domain} {hostname}" if domain else hostname
    for endpoint in record.state.networks.values():
        lines += [f"{own}\t{full}\n" for own in (endpoint["address"], endpoint.get("address6")) if own]
    return "".join(lines)


def resolv_conf(
    record: ContainerRecord, default_dns: list[str], *, own_network: bool, ipv6: bool = False, resolver: bool = False
) -> str:
    """/etc/resolv.conf: the host's, without servers that the container could not reach, or what was asked for.

    resolver: on a user-defined network the engine itself answers, and asks the servers for what it does not know.
    """
    host = record.host
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in _host_lines():
        words = line.split()
        if words[0] == "nameserver" and len(words) > 1:
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = words[1:]
        elif words[0] == "options":
            options += words[1:]
    if own_network:
        reached = [server for server in servers if not _loopback(server) and (ipv6 or ":" not in server)]
        servers = reached or [*PUBLIC_DNS, *(PUBLIC_DNS6 if ipv6 else ())]
    if default_dns:
        servers = default_dns
    servers = host["Dns"] or servers
    search = search if host["DnsSearch"] is None or not host["DnsSearch"] else host["DnsSearch"]
    options = host["DnsOptions"] or options
    if resolver:
        servers = [RESOLVER]
        if not any(option.startswith("ndots:") for option in options):
            options = [*options, "ndots:0"]
    lines = [f"nameserver {server}" for server in servers]
    if search and search != ["."]:
        lines.append("search " + " ".join(search))
    if options:
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n"


def _host_lines() -> list[str]:
    text = _read("/etc/resolv.conf")
    if "nameserver 127.0.0.53" in text:
        text = _read(STUB) or text
    return [line for line in text.splitlines() if line.strip() and not line.startswith(("#", ";"))]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65536)
    except FileNotFoundError:
        return ""


def _loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return True


def write(directory: str, contents: dict[str, str]) -> None:
    """Write the files of a container, in place: running programs may have them open."""
    for name, text in contents.items():
        with open(f"{directory}/{name}", "w", encoding="utf-8") as file:
            file.write(text)
