"""`knarr update`."""

from knarr.cli import values
from knarr.cli.command import BYTES, DECIMAL, INT, TEXT, Command, Option
from knarr.cli.terminal import say, show
from knarr.errors import InvalidArgument, KnarrError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client

_FIELDS = (
    ("blkio_weight", "BlkioWeight"),
    ("cpu_period", "CpuPeriod"),
    ("cpu_quota", "CpuQuota"),
    ("cpu_rt_period", "CpuRealtimePeriod"),
    ("cpu_rt_runtime", "CpuRealtimeRuntime"),
    ("cpu_shares", "CpuShares"),
    ("cpus", "NanoCpus"),
    ("cpuset_cpus", "CpusetCpus"),
    ("cpuset_mems", "CpusetMems"),
    ("memory", "Memory"),
    ("memory_reservation", "MemoryReservation"),
    ("pids_limit", "PidsLimit"),
)


def body(options: "dict[str, Any]") -> "dict[str, Any]":
    """The body of ContainerUpdate: what was given, and nothing else."""
    found: dict[str, Any] = {field: options[key] for key, field in _FIELDS if options[key]}
    if options["memory_swap"]:
        found["MemorySwap"] = values.swap(options["memory_swap"])
    if options["restart"]:
        from knarr.cli.container_body import restart_policy

        found["RestartPolicy"] = restart_policy(options["restart"])
    if not found and all(value is None for value in options.values()):
        raise InvalidArgument("you must provide one or more flags when using this command")
    return found


def _update(client: "Client", options: "dict[str, Any]", names: "list[str]") -> int:
    wanted, code = body(options), 0
    warnings: list[str] = []
    for name in names:
        try:
            warnings += client.containers.update(name, wanted).get("Warnings") or []
        except KnarrError as error:
            say(f"knarr: {error}")
            code = 1
        else:
            show(name)
    for warning in warnings:
        show(warning)
    return code


UPDATE = Command(
    "update",
    _update,
    text="Change the limits and the restart policy of one or more containers",
    usage="CONTAINER [CONTAINER...]",
    example="knarr update --memory 512m --memory-swap 1g --cpus 1.5 web",
    minimum=1,
    complete="containers",
    options=(
        Option("--blkio-weight", INT, "Block IO weight, 10 to 1000"),
        Option("--cpu-period", INT, "CPU CFS period in microseconds"),
        Option("--cpu-quota", INT, "CPU CFS quota in microseconds"),
        Option("--cpu-rt-period", INT, "CPU real-time period in microseconds"),
        Option("--cpu-rt-runtime", INT, "CPU real-time runtime in microseconds"),
        Option("-c --cpu-shares", INT, "CPU shares (relative weight)"),
        Option("--cpus", DECIMAL, "Number of CPUs"),
        Option("--cpuset-cpus", TEXT, "CPUs in which to allow execution (0-3, 0,1)"),
        Option("--cpuset-mems", TEXT, "Memory nodes in which to allow execution (0-3, 0,1)"),
        Option("-m --memory", BYTES, "Memory limit"),
        Option("--memory-reservation", BYTES, "Memory soft limit"),
        Option("--memory-swap", TEXT, "Limit of memory and swap together; -1 for unlimited swap"),
        Option("--pids-limit", INT, "Limit of processes; -1 for unlimited"),
        Option("--restart", TEXT, "Restart policy: no, on-failure[:max-retries], always, unless-stopped"),
    ),
)
