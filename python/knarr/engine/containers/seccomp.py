"""System call profiles: from Docker's format, with its conditions, to the OCI object, by content.

Docker's format lists rules that depend on capabilities, architecture and kernel; OCI's does not.
A profile is resolved for one set of capabilities, written to `<run-root>/seccomp/<hex>.json` once, and
named by its path from then on, so that the supervisor compiles each content once.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from importlib import resources
from typing import Any

from knarr.errors import InvalidArgument

__all__ = ["Profiles", "resolve"]

# uname's name of the machine → (name in `includes.arches`, the architecture and those it can also run)
MACHINES = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "loongarch64": ("loong64", "SCMP_ARCH_LOONGARCH64"),
}
ACTIONS = {
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
}
KNOWN = {"comment", "defaultAction", "defaultErrnoRet", "archMap", "architectures", "flags", "syscalls"}
KNOWN_IN_RULE = {"comment", "name", "names", "action", "errnoRet", "args", "each", "includes", "excludes"}
LIMIT = 1024 * 1024  # characters of a profile


def resolve(
    profile: dict[str, Any], capabilities: frozenset[str], machine: str, kernel: tuple[int, int]
) -> dict[str, Any]:
    """The OCI object (config-linux.md, Seccomp) that a profile means for a process with these capabilities.

    Raises InvalidArgument that names the place in the profile.
    """
    if unknown := set(profile) - KNOWN:
        raise InvalidArgument(f"seccomp profile: unknown field {min(unknown)!r}")
    if profile.get("archMap") and profile.get("architectures"):
        raise InvalidArgument("seccomp profile: give either architectures or archMap, not both")
    short, architecture = MACHINES.get(machine, (machine, ""))
    architectures = list(profile.get("architectures") or ())
    for entry in profile.get("archMap") or ():
        if entry.get("architecture") == architecture:
            architectures = [architecture, *(entry.get("subArchitectures") or ())]
    found: dict[str, Any] = {"defaultAction": _action(profile, "defaultAction", "profile"), "syscalls": []}
    if profile.get("defaultErrnoRet") is not None:
        found["defaultErrnoRet"] = profile["defaultErrnoRet"]
    if architectures:
        found["architectures"] = architectures
    if profile.get("flags"):
        found["flags"] = profile["flags"]
    for number, rule in enumerate(profile.get("syscalls") or ()):
        place = f"syscalls[{number}]"
        if not isinstance(rule, dict):
            raise InvalidArgument(f"seccomp profile: {place}: must be an object")
        if unknown := set(rule) - KNOWN_IN_RULE:
            raise InvalidArgument(f"seccomp profile: {place}: unknown field {min(unknown)!r}")
        if rule.get("name") and rule.get("names"):
            raise InvalidArgument(f"seccomp profile: {place}: give either name or names, not both")
        if not _applies(rule, capabilities, short, kernel):
            continue
        names = rule.get("names") or ([rule["name"]] if rule.get("name") else [])
        if not names or not all(isinstance(name, str) for name in names):
            raise InvalidArgument(f"seccomp profile: {place}: names no system call")
        base: dict[str, Any] = {"names": names, "action": _action(rule, "action", place)}
        if rule.get("errnoRet") is not None:
            base["errnoRet"] = rule["errnoRet"]
        if each := rule.get("each"):
            found["syscalls"] += [
                {**base, "args": [{"index": each["index"], "value": value, "op": each["op"]}]}
                for value in each["values"]
            ]
        else:
            if rule.get("args"):
                base["args"] = [{key: item for key, item in arg.items() if item is not None} for arg in rule["args"]]
            found["syscalls"].append(base)
    return found


def _action(holder: dict[str, Any], key: str, place: str) -> str:
    action = holder.get(key)
    if action not in ACTIONS:
        raise InvalidArgument(f"seccomp profile: {place}: {key} {action!r} is not one of {', '.join(sorted(ACTIONS))}")
    return str(action)


def _applies(rule: dict[str, Any], capabilities: frozenset[str], short: str, kernel: tuple[int, int]) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if includes.get("arches") and short not in includes["arches"]:
        return False
    if short in (excludes.get("arches") or ()):
        return False
    if not capabilities.issuperset(includes.get("caps") or ()):
        return False
    if not capabilities.isdisjoint(excludes.get("caps") or ()):
        return False
    least, most = includes.get("minKernel"), excludes.get("minKernel")
    return not (least and kernel < _version(least)) and not (most and kernel >= _version(most))


def _version(text: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", text)
    if match is None:
        raise InvalidArgument(f"seccomp profile: {text!r} is not a kernel version such as 4.8")
    return int(match[1]), int(match[2])


class Profiles:
    """The resolved profiles of one engine. May be used from threads: writing twice writes the same."""

    def __init__(self, run_root: str) -> None:
        self._directory = f"{run_root}/seccomp"
        self._machine = platform.machine()
        self._kernel = _version(platform.release())
        self._paths: dict[tuple[str, frozenset[str]], str] = {}
        self._default: dict[str, Any] | None = None

    def path(self, profile: str | None, capabilities: frozenset[str]) -> str:
        """The file of a profile (JSON text; None for ours), resolved for a set of capabilities."""
        key = (profile or "", capabilities)
        known = self._paths.get(key)
        if known is not None:
            return known
        text = json.dumps(
            resolve(self._parse(profile), capabilities, self._machine, self._kernel),
            separators=(",", ":"),
            sort_keys=True,
        )
        path = f"{self._directory}/{hashlib.sha256(text.encode()).hexdigest()}.json"
        if not os.path.exists(path):
            os.makedirs(self._directory, 0o700, exist_ok=True)
            partial = f"{path}.{os.getpid()}.{id(key):x}"
            with open(partial, "w", encoding="utf-8") as file:
                file.write(text)
            os.rename(partial, path)
        if len(self._paths) > 256:
            self._paths.clear()
        self._paths[key] = path
        return path

    def check(self, profile: str) -> None:
        """Raise InvalidArgument where a profile cannot be understood."""
        resolve(self._parse(profile), frozenset(), self._machine, self._kernel)

    def _parse(self, profile: str | None) -> dict[str, Any]:
        if profile is None:
            if self._default is None:
                text = resources.files("knarr.resources").joinpath("seccomp.json").read_text(encoding="utf-8")
                self._default = json.loads(text)
            return self._default
        if len(profile) > LIMIT:
            raise InvalidArgument(f"seccomp profile: {len(profile)} characters are more than {LIMIT}")
        try:
            parsed = json.loads(profile)
        except ValueError as error:
            raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from error
        if not isinstance(parsed, dict):
            raise InvalidArgument("Decoding seccomp profile failed: it must be a JSON object")
        return parsed
