"""From the options of `run` and `create` to the body of ContainerCreate (Engine API).

A pure function of the options, the arguments, the environment and the files that options name. What an option leaves
at its default is left out of the body: an absent field and Docker's zero mean the same to the engine.
"""

import os

from knarr.cli import values
from knarr.cli.command import OptionConflict
from knarr.errors import InvalidArgument, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NAMESPACES = {
    "pid": ("PidMode", ("host",), True),
    "uts": ("UTSMode", ("host",), False),
    "userns": ("UsernsMode", ("host",), False),
    "cgroupns": ("CgroupnsMode", ("host", "private"), False),
    "ipc": ("IpcMode", ("none", "private", "shareable", "host"), True),
}
_WINDOWS = ("cpu_count", "cpu_percent", "io_maxbandwidth", "io_maxiops")
# Options whose value goes into HostConfig as it is, where it is set.
_PLAIN = (
    ("privileged", "Privileged"),
    ("publish_all", "PublishAllPorts"),
    ("rm", "AutoRemove"),
    ("read_only", "ReadonlyRootfs"),
    ("cidfile", "ContainerIDFile"),
    ("volume_driver", "VolumeDriver"),
    ("isolation", "Isolation"),
    ("runtime", "Runtime"),
    ("shm_size", "ShmSize"),
    ("volumes_from", "VolumesFrom"),
    ("link", "Links"),
    ("cap_add", "CapAdd"),
    ("cap_drop", "CapDrop"),
    ("group_add", "GroupAdd"),
    ("dns_option", "DnsOptions"),
    ("cgroup_parent", "CgroupParent"),
    ("memory", "Memory"),
    ("memory_reservation", "MemoryReservation"),
    ("oom_kill_disable", "OomKillDisable"),
    ("oom_score_adj", "OomScoreAdj"),
    ("cpus", "NanoCpus"),
    ("cpu_shares", "CpuShares"),
    ("cpu_period", "CpuPeriod"),
    ("cpu_quota", "CpuQuota"),
    ("cpu_rt_period", "CpuRealtimePeriod"),
    ("cpu_rt_runtime", "CpuRealtimeRuntime"),
    ("cpuset_cpus", "CpusetCpus"),
    ("cpuset_mems", "CpusetMems"),
    ("pids_limit", "PidsLimit"),
    ("blkio_weight", "BlkioWeight"),
)


def build(options: "dict[str, Any]", image: str, command: "list[str]") -> "dict[str, Any]":
    """The body: Config's fields, HostConfig and NetworkingConfig. InvalidArgument for values that cannot be."""
    if options["use_api_socket"]:
        raise Unsupported(
            "--use-api-socket is not supported by knarr: bind the engine's socket, and ~/.docker/config.json, with -v"
        )
    for key in _WINDOWS:
        if options[key]:
            raise InvalidArgument(
                f'"--{key.replace("_", "-")}" is only supported on a Docker daemon running on windows, '
                "but the Docker daemon is running on linux"
            )
    host = _host_config(options)
    body: dict[str, Any] = {"Image": image, "HostConfig": host}
    _streams(options, body)
    if command:
        body["Cmd"] = command
    if options["entrypoint"] is not None:
        body["Entrypoint"] = [options["entrypoint"]]
    for key, field in (
        ("hostname", "Hostname"),
        ("domainname", "Domainname"),
        ("user", "User"),
        ("workdir", "WorkingDir"),
        ("stop_signal", "StopSignal"),
        ("tty", "Tty"),
    ):
        if options[key]:
            body[field] = options[key]
    if options["stop_timeout"] is not None:
        body["StopTimeout"] = options["stop_timeout"]
    if options["env"] or options["env_file"]:
        body["Env"] = environment(options["env"], options["env_file"])
    if options["label"] or options["label_file"]:
        body["Labels"] = _labels(options)
    if options["volume"] or options["mount"] or options["tmpfs"]:
        from knarr.cli import mounts

        mounts.apply(options["volume"], options["mount"], options["tmpfs"], body, host)
    if options["publish"] or options["expose"]:
        from knarr.cli import ports

        ports.apply(options["publish"], options["expose"], body, host)
    _network(options, body, host)
    if options["no_healthcheck"] or any(options[key] for key in _HEALTH):
        body["Healthcheck"] = _healthcheck(options)
    return body


def _streams(options: "dict[str, Any]", body: "dict[str, Any]") -> None:
    attached = set()
    for name in options["attach"]:
        if name.lower() not in ("stdin", "stdout", "stderr"):
            raise InvalidArgument(f"--attach {name}: valid streams are STDIN, STDOUT and STDERR")
        attached.add(name.lower())
    if not attached:
        attached = {"stdout", "stderr"}
    if options["interactive"]:
        body["OpenStdin"] = True
        attached.add("stdin")
    if options.get("detach"):
        if options["attach"]:
            raise OptionConflict("conflicting options: cannot specify both --attach and --detach")
        return
    for stream in ("stdin", "stdout", "stderr"):
        if stream in attached:
            body["Attach" + stream.capitalize()] = True
    if options["interactive"]:
        body["StdinOnce"] = True  # an attached terminal or pipe that goes away is the end of the program's input


def _host_config(options: "dict[str, Any]") -> "dict[str, Any]":
    host: dict[str, Any] = {field: options[key] for key, field in _PLAIN if options[key]}
    if options["host_overlay"]:
        host["Knarr"] = {"HostOverlay": True}
    if options["init"] is not None:
        host["Init"] = options["init"]
    if options["umask"] is not None:
        host["Umask"] = values.octal(options["umask"], "--umask")
    if options["memory_swap"]:
        host["MemorySwap"] = values.swap(options["memory_swap"])
    if options["memory_swappiness"] != -1:
        if not 0 <= options["memory_swappiness"] <= 100:
            raise InvalidArgument(f"invalid value: {options['memory_swappiness']}: --memory-swappiness is 0 to 100")
        host["MemorySwappiness"] = options["memory_swappiness"]
    for key, (field, known, shared) in _NAMESPACES.items():
        mode = options[key]
        if mode:
            if mode not in known and not (shared and mode.startswith("container:") and mode != "container:"):
                raise InvalidArgument(f"--{key}: invalid {'USER' if key == 'userns' else key.upper()} mode {mode!r}")
            host[field] = mode
    policy = restart_policy(options["restart"])
    if policy["Name"] not in ("", "no"):
        if options["rm"]:
            raise InvalidArgument("conflicting options: cannot specify both --restart and --rm")
        host["RestartPolicy"] = policy
    if options["log_driver"] or options["log_opt"]:
        if options["log_driver"] == "none" and options["log_opt"]:
            raise InvalidArgument("invalid logging opts for driver none")
        host["LogConfig"] = {"Type": options["log_driver"] or "", "Config": values.pairs(options["log_opt"])}
    if options["security_opt"]:
        _security(options["security_opt"], host)
    if options["sysctl"]:
        host["Sysctls"] = values.pairs([_sysctl(item) for item in options["sysctl"]])
    if options["annotation"]:
        host["Annotations"] = values.pairs(options["annotation"])
    if options["egress"]:
        host["Annotations"] = {**host.get("Annotations", {}), "knarr.egress": ",".join(options["egress"])}
    if options["storage_opt"]:
        for item in options["storage_opt"]:
            if "=" not in item:
                raise InvalidArgument(f"invalid storage option {item!r}: it is name=value")
        host["StorageOpt"] = values.pairs(options["storage_opt"])
    if options["add_host"]:
        host["ExtraHosts"] = [_extra_host(item) for item in options["add_host"]]
    if options["dns"]:
        host["Dns"] = [address(item, "--dns") for item in options["dns"]]
    if options["dns_search"]:
        host["DnsSearch"] = [item.strip() for item in options["dns_search"]]
    _devices(options, host)
    return host


def _devices(options: "dict[str, Any]", host: "dict[str, Any]") -> None:
    if any(options[key] for key in _DEVICE_OPTIONS):
        from knarr.cli import devices

        devices.apply(options, host)


_DEVICE_OPTIONS = (
    "gpus",
    "device",
    "device_cgroup_rule",
    "ulimit",
    "blkio_weight_device",
    "device_read_bps",
    "device_read_iops",
    "device_write_bps",
    "device_write_iops",
)
_HEALTH = (
    "health_cmd",
    "health_interval",
    "health_timeout",
    "health_start_period",
    "health_start_interval",
    "health_retries",
)


def _healthcheck(options: "dict[str, Any]") -> "dict[str, Any]":
    if options["no_healthcheck"]:
        if any(options[key] for key in _HEALTH):
            raise InvalidArgument("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if options["health_retries"] < 0:
        raise InvalidArgument("--health-retries cannot be negative")
    result: dict[str, Any] = {"Test": ["CMD-SHELL", options["health_cmd"]]} if options["health_cmd"] else {}
    for key, field in (
        ("health_interval", "Interval"),
        ("health_timeout", "Timeout"),
        ("health_start_period", "StartPeriod"),
        ("health_start_interval", "StartInterval"),
        ("health_retries", "Retries"),
    ):
        if options[key]:
            result[field] = options[key]
    return result


def environment(given: "list[str]", files: "list[str]") -> "list[str]":
    """NAME=value of files and options, in order. NAME alone takes this environment's value, if it has one."""
    result = []
    for name in files:
        for key, value in _read_pairs(name, "--env-file"):
            if value is not None:
                result.append(f"{key}={value}")
            elif key in os.environ:
                result.append(f"{key}={os.environ[key]}")
    for item in given:
        key, equals, _ = item.partition("=")
        if not key:
            raise InvalidArgument(f"invalid environment variable: {item!r}")
        result.append(f"{key}={os.environ[key]}" if not equals and key in os.environ else item)
    return result


def _labels(options: "dict[str, Any]") -> "dict[str, str]":
    result = {}
    for name in options["label_file"]:
        found = _read_pairs(name, "--label-file")
        result.update({key: value for key, value in found if value is not None})  # a name alone counts for nothing
    for item in options["label"]:
        key = item.partition("=")[0].lstrip()
        if not key:
            raise InvalidArgument(f"invalid label {item!r}: empty name")
        if " " in key or "\t" in key:
            raise InvalidArgument(f"label {key!r} contains whitespace")
    result.update(values.pairs(options["label"]))
    return result


def _read_pairs(name: str, option: str) -> "list[tuple[str, str | None]]":
    """The lines of a file: NAME=value or NAME, without comments and empty lines."""
    try:
        with open(name, encoding="utf-8-sig") as file:
            lines = file.read().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidArgument(f"{option} {name}: {reason}") from error
    result: list[tuple[str, str | None]] = []
    for number, line in enumerate(lines, 1):
        text = line.lstrip().removesuffix("\r")
        if not text or text.startswith("#"):
            continue
        key, equals, value = text.partition("=")
        if not key or " " in key or "\t" in key:
            raise InvalidArgument(f"{option} {name}, line {number}: {key!r} is no name of a variable")
        result.append((key, value if equals else None))
    return result


def restart_policy(text: str) -> "dict[str, Any]":
    """{"Name", "MaximumRetryCount"} of "on-failure:3"."""
    name, colon, count = text.partition(":")
    if colon and not name:
        raise InvalidArgument("invalid restart policy format: no policy provided before colon")
    if name not in ("", "no", "always", "unless-stopped", "on-failure"):
        raise InvalidArgument(
            f"invalid restart policy {name!r}: it is no, on-failure[:max-retries], always or unless-stopped"
        )
    return {"Name": name, "MaximumRetryCount": values.integer(count, "restart policy") if count else 0}


def _security(given: "list[str]", host: "dict[str, Any]") -> None:
    kept = []
    for item in given:
        key, separator, value = item.partition("=")
        if not separator and key != "no-new-privileges":
            key, separator, value = item.partition(":")
        if key != "no-new-privileges" and not value:
            raise InvalidArgument(f"invalid --security-opt: {item!r}")
        if item == "systempaths=unconfined":
            host["MaskedPaths"] = []
            host["ReadonlyPaths"] = []
            continue
        if key == "seccomp" and value not in ("builtin", "unconfined"):
            kept.append("seccomp=" + _seccomp_profile(value))
        else:
            kept.append(item)
    if kept:
        host["SecurityOpt"] = kept


def _seccomp_profile(name: str) -> str:
    from knarr.client.codec import dumps, loads

    try:
        with open(name, "rb") as file:
            return dumps(loads(file.read())).decode()
    except OSError as error:
        raise InvalidArgument(f"opening seccomp profile ({name}) failed: {error.strerror}") from error
    except ValueError as error:
        raise InvalidArgument(f"seccomp profile {name} is not JSON: {error}") from error


def _sysctl(item: str) -> str:
    if not item.partition("=")[0] or "=" not in item:
        raise InvalidArgument(f"sysctl {item!r}: it is name=value")
    return item


def _extra_host(item: str) -> str:
    name, separator, where = item.partition("=")
    if not separator:
        name, separator, where = item.partition(":")
    if not separator or not name or ":" in name:
        raise InvalidArgument(f"bad format for add-host: {item!r}: it is name:address")
    if where != "host-gateway":
        if len(where) > 2 and where[0] == "[" and where[-1] == "]":
            where = where[1:-1]
        address(where, "--add-host")
    return f"{name}:{where}"


def address(text: str, option: str) -> str:
    """An IP address, as it was given."""
    import _socket

    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, text.strip())
        except OSError:
            continue
        return text.strip()
    raise InvalidArgument(f"{option}: {text!r} is not an IP address")


def _network(options: "dict[str, Any]", body: "dict[str, Any]", host: "dict[str, Any]") -> None:
    plain = all("=" not in item for item in options["network"]) and len(options["network"]) < 2
    if plain and not any(options[key] for key in ("network_alias", "ip", "ip6", "link_local_ip", "mac_address")):
        host["NetworkMode"] = options["network"][0] if options["network"] else "default"
        return
    from knarr.cli import endpoints

    endpoints.apply(options, body, host)
