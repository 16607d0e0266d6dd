"""ContainerStatsResponse, from what the supervisor measured."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from knarr.api.wire.containers import timestamp

if TYPE_CHECKING:
    from knarr.engine.containers.stats import Sample
    from knarr.store.containers import ContainerRecord

__all__ = ["stats"]

NO_LIMIT = (1 << 64) - 1  # what Docker says of cgroup v2's `max`
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
_BLOCK_LISTS = (
    "io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive", "io_service_time_recursive",
    "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive", "sectors_recursive",
)  # fmt: skip


def stats(record: ContainerRecord, sample: Sample, before: Sample | None) -> dict[str, Any]:
    """The answer for a sample, with the processor time of the one before it."""
    usage = sample.usage
    answer: dict[str, Any] = {
        "id": record.id,
        "name": f"/{record.name}",
        "os_type": "linux",
        "read": timestamp(usage["read"] if usage else 0),
        "cpu_stats": _processors(sample),
        "memory_stats": _memory(usage) if usage else {},
    }
    if usage and usage["networks"] and not record.config["NetworkDisabled"]:
        answer["networks"] = usage["networks"]
    return answer | {
        "pids_stats": _processes(usage) if usage else {},
        "blkio_stats": _blocks(usage),
        "num_procs": 0,
        "storage_stats": {},
        "preread": timestamp(before.usage["read"] if before and before.usage else 0),
        "precpu_stats": _processors(before),
    }


def _processors(sample: Sample | None) -> dict[str, Any]:
    found = sample.usage["cpu"] if sample and sample.usage else None
    used: dict[str, Any] = {"total_usage": found["total"] if found else 0}
    if found and found["per_cpu"]:
        used["percpu_usage"] = found["per_cpu"]
    used["usage_in_kernelmode"] = found["system"] if found else 0
    used["usage_in_usermode"] = found["user"] if found else 0
    answer: dict[str, Any] = {"cpu_usage": used}
    if sample and found:
        answer |= {"system_cpu_usage": sample.system["cpu"], "online_cpus": sample.system["online"]}
    answer["throttling_data"] = {
        "periods": found["periods"] if found else 0,
        "throttled_periods": found["throttled_periods"] if found else 0,
        "throttled_time": found["throttled_time"] if found else 0,
    }
    return answer


def _memory(usage: dict[str, Any]) -> dict[str, Any]:
    found = usage["memory"]
    fields = {
        "usage": found["usage"],
        "max_usage": found["max_usage"],
        "stats": found["stats"],
        "failcnt": found["failures"],
        "limit": min(found["limit"] or MEMORY, MEMORY),
    }
    return {name: value for name, value in fields.items() if value}


def _processes(usage: dict[str, Any]) -> dict[str, Any]:
    found = usage["pids"]
    limit = found["limit"] or (NO_LIMIT if usage["version"] == 2 else 0)
    return {name: value for name, value in (("current", found["current"]), ("limit", limit)) if value}


def _blocks(usage: dict[str, Any] | None) -> dict[str, Any]:
    """Version 1 has lists of everything, empty or not; version 2 of what it knows alone."""
    if usage is None or usage["version"] == 2:
        answer: dict[str, Any] = dict.fromkeys(_BLOCK_LISTS)
        if usage and usage["io"]["bytes"]:
            answer["io_service_bytes_recursive"] = _entries(usage["io"]["bytes"])
        return answer
    answer = {name: [] for name in _BLOCK_LISTS}
    answer["io_service_bytes_recursive"] = _entries(usage["io"]["bytes"])
    answer["io_serviced_recursive"] = _entries(usage["io"]["operations"])
    return answer


def _entries(lines: list[list[Any]]) -> list[dict[str, Any]]:
    return [
        {"major": major, "minor": minor, "op": operation, "value": value} for major, minor, operation, value in lines
    ]
