"""-p and --expose (Docker's notation: [ip:][host:]container[/protocol], each port a number or a range)."""

from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROTOCOLS = ("tcp", "udp", "sctp")


def apply(published: "list[str]", exposed: "list[str]", body: "dict[str, Any]", host: "dict[str, Any]") -> None:
    """Put them into ExposedPorts of the body of ContainerCreate and PortBindings of its HostConfig."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for item in published:
        for port, binding in publish(item):
            bindings.setdefault(port, []).append(binding)
    ports: dict[str, dict[str, str]] = {port: {} for port in bindings}
    for item in exposed:
        for port in expose(item):
            ports[port] = {}
    body["ExposedPorts"] = ports
    if bindings:
        host["PortBindings"] = bindings


def publish(spec: str) -> "list[tuple[str, dict[str, str]]]":
    """("80/tcp", {"HostIp", "HostPort"}) of each port that is published."""
    text = _short(spec)
    head, _, container = text.rpartition(":")
    ip, _, host = head.rpartition(":")
    container, slash, protocol = container.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if not container:
        raise InvalidArgument(f"no port specified: {spec}<empty>")
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {protocol} (in {spec})")
    if ip:
        ip = _address(ip, spec)
    first, last = _range(container, f"invalid containerPort: {container} (in {spec})")
    if not host:
        return [(f"{port}/{protocol}", {"HostIp": ip, "HostPort": ""}) for port in range(first, last + 1)]
    host_first, host_last = _range(host, f"invalid hostPort: {host} (in {spec})")
    if first == last:
        chosen = host if host_first != host_last else str(host_first)
        return [(f"{first}/{protocol}", {"HostIp": ip, "HostPort": chosen})]
    if last - first != host_last - host_first:
        raise InvalidArgument(f"invalid ranges specified for container and host Ports: {container} and {host}")
    return [
        (f"{first + offset}/{protocol}", {"HostIp": ip, "HostPort": str(host_first + offset)})
        for offset in range(last - first + 1)
    ]


def expose(spec: str) -> "list[str]":
    """The ports of "80", "80/udp" or "80-90"."""
    numbers, slash, protocol = spec.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {protocol} (in --expose {spec})")
    first, last = _range(numbers, f"invalid range format for --expose: {spec}")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _short(spec: str) -> str:
    """The short notation of "published=80,target=8080,protocol=tcp"."""
    if "=" not in spec:
        return spec
    given = {"protocol": "tcp", "published": "", "target": ""}
    for part in spec.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise InvalidArgument(f"invalid publish opts format (should be name=value but got '{part}')")
        given[key] = value
    return f"{given['published']}:{given['target']}/{given['protocol']}"


def _address(text: str, spec: str) -> str:
    from knarr.cli.container_body import address

    if text.startswith("["):
        if not text.endswith("]"):
            raise InvalidArgument(f"invalid IP address: {text} (in {spec})")
        text = text[1:-1]
    return address(text, f"-p {spec}")


def _range(text: str, complaint: str) -> "tuple[int, int]":
    first, dash, last = text.partition("-")
    numbers = (first, last if dash else first)
    if not all(number.isdigit() and number.isascii() and int(number) <= 65535 for number in numbers):
        raise InvalidArgument(complaint)
    start, end = int(numbers[0]), int(numbers[1])
    if end < start:
        raise InvalidArgument(complaint)
    return start, end
