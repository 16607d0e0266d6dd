"""Whether a container that is asked for can be had: every field is honoured, or refused by name.

Raises InvalidArgument for what makes no sense, in Docker's words where clients know them, and
Unsupported for what is known and not done.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING, Any

from knarr.engine.containers import healthcheck, logs, signals
from knarr.engine.containers.capabilities import capabilities
from knarr.engine.containers.offered import discard, offered
from knarr.engine.networks import egress
from knarr.engine.volumes import sizes
from knarr.errors import InvalidArgument, KnarrError, Unsupported

if TYPE_CHECKING:
    from knarr.store.containers import Config, HostConfig

__all__ = ["check", "check_mac", "check_resources", "check_restart", "parse_port", "security"]

LONGEST_HOSTNAME = 64  # bytes, as the kernel has it
MINIMUM_MEMORY = 6 * 1024 * 1024
RESTARTS = ("", "no", "on-failure", "always", "unless-stopped")
# What the one runtime is called: clients send Docker's names, and hand back what an inspect said.
RUNTIMES = ("", "knarr", "runc", "io.containerd.runc.v2")
# Fields of HostConfig that ask for what is not done: (the values that ask for nothing, the error).
UNSUPPORTED: dict[str, tuple[tuple[Any, ...], KnarrError]] = {
    "Runtime": (RUNTIMES, InvalidArgument("unknown or invalid runtime name: {value}")),
    "Isolation": (
        ("", "default"),
        InvalidArgument("invalid isolation ({value}): linux only supports 'default'"),
    ),
    "UsernsMode": (
        ("", "host"),
        InvalidArgument("invalid userns mode: {value}: knarr remaps no users, host is all it has"),
    ),
    "IOMaximumIOps": (
        (0,),
        InvalidArgument("invalid option: QoS maximum IOPs configuration is not supported on linux"),
    ),
    "IOMaximumBandwidth": (
        (0,),
        InvalidArgument("invalid option: QoS maximum bandwidth configuration is not supported on linux"),
    ),
    "Cgroup": (("",), Unsupported("HostConfig.Cgroup is not supported by knarr: leave it out (it was {value!r})")),
}
_ULIMITS = {
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
}  # fmt: skip
# Field of HostConfig → field of `linux.resources.blockIO`.
BLOCK_RATES = {
    "BlkioDeviceReadBps": "throttleReadBpsDevice",
    "BlkioDeviceWriteBps": "throttleWriteBpsDevice",
    "BlkioDeviceReadIOps": "throttleReadIOPSDevice",
    "BlkioDeviceWriteIOps": "throttleWriteIOPSDevice",
}
_SYSCTL_IPC = {
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
    "kernel.shm_rmid_forced",
}  # fmt: skip


def check(config: Config, host: HostConfig) -> list[str]:
    """Check a whole request; warnings for its maker. The image has not been merged in yet."""
    warnings: list[str] = []
    _check_config(config)
    for field, (harmless, error) in UNSUPPORTED.items():
        value = host[field]  # type: ignore[literal-required]
        if value not in harmless:
            raise type(error)(str(error).format(value=value))
    _check_storage(host)
    _check_device_requests(host)
    check_resources(host, warnings)
    _check_namespaces(config, host, warnings)
    check_restart(host)
    logs.check(host["LogConfig"])
    security(host)
    capabilities(host)
    for port, bindings in (host["PortBindings"] or {}).items():
        parse_port(port)
        for binding in bindings or ():
            _check_binding(port, binding.get("HostIp") or "", binding.get("HostPort") or "")
    for entry in host["ExtraHosts"] or ():
        name, separator, address = entry.replace("=", ":", 1).partition(":")
        if not separator or not name or not address:
            raise InvalidArgument(f'bad format for add-host: "{entry}"')
        if address != "host-gateway":
            _address(address.strip("[]"), f'invalid IP address in add-host: "{address}"')
    for server in host["Dns"] or ():
        _address(server, f"{server} is not a valid DNS server address")
    for key in host["Annotations"] or {}:
        if not key:
            raise InvalidArgument("invalid Annotations: the empty string is not permitted as an annotation key")
        if key.startswith("knarr.") and key != egress.EGRESS:
            raise InvalidArgument(f"invalid Annotations: {key}: names that begin with 'knarr.' are the runtime's own")
    if egress.of(host["Annotations"]) is not None:
        mode = host["NetworkMode"]
        if mode == "host" or mode.startswith("container:"):
            raise InvalidArgument(
                f"conflicting options: an egress list and the network mode {mode}: "
                "the network is not the container's own"
            )
    for field in ("MaskedPaths", "ReadonlyPaths"):
        for path in host[field] or ():  # type: ignore[literal-required]
            if not path.startswith("/") or "\0" in path:
                raise InvalidArgument(f"HostConfig.{field}: {path!r} is not an absolute path")
    _check_knarr(config, host)
    return warnings


def _check_config(config: Config) -> None:
    if config["MacAddress"]:
        check_mac(config["MacAddress"])
    if config["WorkingDir"] and not config["WorkingDir"].startswith("/"):
        raise InvalidArgument(
            f"the working directory '{config['WorkingDir']}' is invalid, it needs to be an absolute path"
        )
    if config["StopSignal"]:
        signals.number(config["StopSignal"])
    for entry in config["Env"] or ():
        if not entry or entry.startswith("=") or "\0" in entry:
            raise InvalidArgument(f"invalid environment variable: {entry}")
    for port in config["ExposedPorts"] or {}:
        parse_port(port)
    # Sets: what is under their keys means nothing.
    if config["ExposedPorts"]:
        config["ExposedPorts"] = {port: {} for port in config["ExposedPorts"]}
    if config["Volumes"]:
        config["Volumes"] = {path: {} for path in config["Volumes"]}
    for argument in [*(config["Entrypoint"] or ()), *(config["Cmd"] or ())]:
        if "\0" in argument:
            raise InvalidArgument(f"invalid command: {argument!r} contains a NUL byte")
    healthcheck.check(config["Healthcheck"])
    hostname = config["Hostname"]
    if len(hostname.encode()) > LONGEST_HOSTNAME:
        raise InvalidArgument(f'hostname "{hostname}" is too long (maximum {LONGEST_HOSTNAME} bytes)')
    if hostname != "".join(hostname.split()) or not hostname.isprintable():
        raise InvalidArgument(f"invalid hostname: {hostname!r}: it may hold no spaces and no control characters")
    for name in ("User", "WorkingDir", "Domainname"):
        if "\0" in config[name]:
            raise InvalidArgument(f"invalid {name}: it contains a NUL byte")


def check_resources(host: HostConfig, warnings: list[str], *, update: bool = False) -> None:
    """Check the limits, of a new container or of an update; what is done otherwise is added to the warnings."""
    memory, swap = host["Memory"], host["MemorySwap"]
    if memory and memory < MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if memory > 0 and 0 < swap < memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory == 0 and swap > 0 and not update:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host["MemoryReservation"] and host["MemoryReservation"] < MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if memory and host["MemoryReservation"] > memory:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    swappiness = host["MemorySwappiness"]
    if swappiness is not None and not -1 <= swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    if host["OomKillDisable"] and not memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    nano = host["NanoCpus"]
    if nano:
        processors = os.cpu_count() or 1
        if not 10_000_000 <= nano <= processors * 1_000_000_000:
            raise InvalidArgument(
                f"range of CPUs is from 0.01 to {processors}.00, as there are only {processors} CPUs available"
            )
        if host["CpuPeriod"]:
            raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
        if host["CpuQuota"]:
            raise InvalidArgument("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if host["CpuPeriod"] and not 1000 <= host["CpuPeriod"] <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if host["CpuQuota"] > 0 and host["CpuQuota"] < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host["CpuShares"] < 0:
        raise InvalidArgument(f"invalid CPU shares ({host['CpuShares']}): value must be a positive integer")
    for field in ("CpusetCpus", "CpusetMems"):
        value = host[field]
        if value and not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", value):
            raise InvalidArgument(f"Invalid value {value} for {field.lower().replace('cpuset', 'cpuset ')}")
    _check_block_devices(host)
    if host["BlkioWeight"] and not 10 <= host["BlkioWeight"] <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    if not -1000 <= host["OomScoreAdj"] <= 1000:
        raise InvalidArgument(f"Invalid value {host['OomScoreAdj']}, range for oom score adj is [-1000, 1000]")
    if host["ShmSize"] < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    if host["Umask"] is not None and not 0 <= host["Umask"] <= 0o777:
        raise InvalidArgument(f"HostConfig.Umask {host['Umask']} is outside 0 to 511 (octal 777)")
    for limit in host["Ulimits"] or ():
        name, soft, hard = limit.get("Name") or "", limit.get("Soft") or 0, limit.get("Hard") or 0
        if name not in _ULIMITS:
            raise InvalidArgument(f"invalid ulimit type: {name}")
        if hard != -1 and (soft == -1 or soft > hard):
            raise InvalidArgument(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    for rule in host["DeviceCgroupRules"] or ():
        if not re.fullmatch(r"[acb] ([0-9]+|\*):([0-9]+|\*) [rwm]{1,3}", rule):
            raise InvalidArgument(f"invalid device cgroup rule format: '{rule}'")
    discard(host, warnings, offered())
    size = host["ConsoleSize"]
    if size and (len(size) != 2 or any(not 0 <= cells <= 65535 for cells in size)):
        raise InvalidArgument("HostConfig.ConsoleSize must be [height, width]")


def _check_block_devices(host: HostConfig) -> None:
    for device in host["BlkioWeightDevice"] or ():
        if not device.get("Path", "").startswith("/") or not 10 <= (device.get("Weight") or 0) <= 1000:
            raise InvalidArgument(
                f"BlkioWeightDevice {device}: an absolute path and a weight from 10 to 1000 are needed"
            )
    for field in BLOCK_RATES:
        for rate in host[field] or ():  # type: ignore[literal-required]
            if not rate.get("Path", "").startswith("/") or not 0 < rate.get("Rate", 0) < 1 << 63:
                raise InvalidArgument(f"{field} {rate}: an absolute path and a rate above 0 are needed")


def _check_storage(host: HostConfig) -> None:
    for key in host["StorageOpt"] or {}:
        if key != "size":
            raise InvalidArgument(f"Unknown option {key}")
    if sizes.asked(host["StorageOpt"]) and (host["Knarr"] or {}).get("HostOverlay"):
        raise InvalidArgument(
            "StorageOpt limits layers of an image: give Knarr.OverlaySize for an overlay of the host's root"
        )


def _check_device_requests(host: HostConfig) -> None:
    for wanted in host["DeviceRequests"] or ():
        driver, capabilities = wanted.get("Driver") or "", wanted.get("Capabilities") or []
        if driver == "cdi":
            names = ", ".join(wanted.get("DeviceIDs") or ())
            raise Unsupported(f"CDI device injection is not supported by knarr: unresolvable CDI devices {names}")
        shown = "[" + " ".join("[" + " ".join(every) + "]" for every in capabilities) + "]"
        raise InvalidArgument(f'could not select device driver "{driver}" with capabilities: {shown}')


def _check_namespaces(config: Config, host: HostConfig, warnings: list[str]) -> None:
    mode = host["NetworkMode"]
    if mode.startswith("container:"):
        if config["Hostname"]:
            raise InvalidArgument("conflicting options: hostname and the network mode")
        if host["PortBindings"] or host["PublishAllPorts"]:
            raise InvalidArgument("conflicting options: port publishing and the container type network mode")
        if host["Dns"]:
            raise InvalidArgument("conflicting options: dns and the network mode")
        if host["ExtraHosts"]:
            raise InvalidArgument("conflicting options: custom host-to-IP mapping and the network mode")
    if mode == "host" and (host["PortBindings"] or host["PublishAllPorts"]):
        warnings.append("Published ports are discarded when using host network mode")
    ipc = host["IpcMode"]
    if ipc not in ("", "private", "shareable", "none", "host") and not (ipc.startswith("container:") and ipc[10:]):
        raise InvalidArgument(f"invalid IPC mode: {ipc}")
    pid = host["PidMode"]
    if pid not in ("", "private", "host") and not (pid.startswith("container:") and pid[10:]):
        raise InvalidArgument(f"invalid PID mode: {pid}")
    if host["UTSMode"] not in ("", "private", "host"):
        raise InvalidArgument(f"invalid UTS mode: {host['UTSMode']}")
    if host["UTSMode"] == "host" and config["Hostname"]:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if host["CgroupnsMode"] not in ("", "private", "host"):
        raise InvalidArgument(f"invalid cgroup namespace mode: {host['CgroupnsMode']}")
    parent = host["CgroupParent"]
    if parent and ("\0" in parent or {"", ".", ".."} & set(parent.strip("/").split("/")) or len(parent) > 512):
        raise InvalidArgument(f"invalid cgroup parent {parent!r}: it is the path of a control group, without '..'")
    for name in host["Sysctls"] or {}:
        key = name.replace("/", ".")
        if key.startswith("net."):
            if mode == "host" or mode.startswith("container:"):
                raise InvalidArgument(f"sysctl '{key}' not allowed in host network namespace")
        elif key.startswith("fs.mqueue.") or key in _SYSCTL_IPC:
            if ipc == "host" or ipc.startswith("container:"):
                raise InvalidArgument(f"sysctl '{key}' not allowed in host ipc namespace")
        elif key == "kernel.domainname":
            if host["UTSMode"] == "host":
                raise InvalidArgument(f"sysctl '{key}' not allowed in host uts namespace")
        else:
            raise InvalidArgument(f"sysctl '{key}' is not separate for a container and would change the host")


def check_restart(host: HostConfig) -> None:
    """Check the restart policy."""
    name = host["RestartPolicy"].get("Name") or ""
    retries = host["RestartPolicy"].get("MaximumRetryCount") or 0
    if name not in RESTARTS:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if retries and name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if retries < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if host["AutoRemove"] and name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def _check_binding(port: str, address: str, host_port: str) -> None:
    if address:
        try:
            host_address(address)
        except ValueError:
            raise InvalidArgument(f"invalid IP address {address!r} in the port binding of {port}") from None
    if host_port:
        try:
            host_ports(host_port)
        except ValueError as error:
            raise InvalidArgument(f"invalid host port {host_port!r} in the port binding of {port}") from error


def host_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """A binding's address of the host, IPv4 also where it is written as one of IPv6. Raises ValueError."""
    found = ipaddress.ip_address(text)
    if isinstance(found, ipaddress.IPv6Address):
        if found.scope_id is not None or found.is_link_local:
            raise ValueError(text)  # it says nothing without its interface
        return found.ipv4_mapped or found
    return found


def host_ports(text: str) -> tuple[int, int | None]:
    """A binding's host port, and the last of a range of which any will do. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    if found is None:
        raise ValueError(text)
    first, last = int(found[1]), int(found[2] or found[1])
    if last > 65535 or last < first or (last > first and not first):
        raise ValueError(text)
    return first, last if last > first else None


def _check_knarr(config: Config, host: HostConfig) -> None:
    ours = host["Knarr"] or {}
    if unknown := set(ours) - {"HostOverlay", "OverlaySize"}:
        raise InvalidArgument(f"HostConfig.Knarr: unknown field {min(unknown)!r}")
    if ours.get("HostOverlay") and config["Image"]:
        raise InvalidArgument("HostConfig.Knarr.HostOverlay takes the place of an image: leave Image empty")
    size = ours.get("OverlaySize")
    if size is not None and (not isinstance(size, int) or not 1024 * 1024 <= size <= 1 << 50):
        raise InvalidArgument("HostConfig.Knarr.OverlaySize must be bytes, at least 1 MiB")


def parse_port(text: str) -> tuple[str, int]:
    """("tcp", "udp" or "sctp", number) of `80/tcp`. Raises InvalidArgument."""
    number, _, protocol = text.partition("/")
    if not (number.isascii() and number.isdigit()) or not 1 <= int(number) <= 65535:
        raise InvalidArgument(f"invalid port specification: {text!r}")
    protocol = protocol.lower() or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"invalid port specification: {text!r}: unknown protocol")
    return protocol, int(number)


def _address(text: str, message: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(message) from None


def check_mac(text: str) -> None:
    """Raise InvalidArgument for what is no address of one network card."""
    if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", text) or int(text[:2], 16) & 1:
        raise InvalidArgument(f"invalid MAC address: {text}")


def security(host: HostConfig) -> tuple[str | None, bool]:
    """(seccomp: None for ours, "unconfined", or a profile's JSON text; no new privileges) of SecurityOpt."""
    profile: str | None = None
    no_new_privileges = False
    for option in host["SecurityOpt"] or ():
        key, separator, value = option.partition("=")
        if not separator:
            key, separator, value = option.partition(":")
        if key == "no-new-privileges":
            if value not in ("", "true", "false"):
                raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
            no_new_privileges = value != "false"
        elif not separator:
            raise InvalidArgument(f'invalid --security-opt 1: "{option}"')
        elif key == "seccomp":
            profile = None if value in ("builtin", "default") else value
        elif option in ("label=disable", "label:disable", "apparmor=unconfined", "apparmor:unconfined"):
            continue  # neither SELinux labels nor AppArmor profiles are ever applied
        else:
            raise Unsupported(f"SecurityOpt {option!r} is not supported by knarr: seccomp and no-new-privileges are")
    if host["Privileged"] and profile is None:
        profile = "unconfined"
    return profile, no_new_privileges
