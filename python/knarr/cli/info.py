"""`knarr info`."""

from knarr.cli import documents, human
from knarr.cli.command import TEXT, Command, Option
from knarr.cli.terminal import say, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client

# Title and field of lines that are left out where they are empty.
_HOST = (
    ("Kernel Version", "KernelVersion"),
    ("Operating System", "OperatingSystem"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
)
_PROXIES = (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy"))


def _info(client: "Client", options: "dict[str, Any]", _arguments: "list[str]") -> int:
    template = documents.compiled(options["format"]) if options["format"] else None
    info = client.info()
    if options["format"]:
        documents.write({**info, "ClientInfo": _own()}, template)
        return 0
    own = _own()
    show("Client:")
    show(f" Version:    {own['Version']}")
    show(f" Context:    {own['Context']}")
    show(f" Debug Mode: {_spoken(own['Debug'])}")
    show("")
    show("Server:")
    for line in lines(info):
        show(f" {line}")
    show("")
    for warning in info.get("Warnings") or ():
        say(warning)
    return 0


def _own() -> "dict[str, Any]":
    from knarr import __version__

    return {"Debug": False, "Version": __version__, "Context": "default", "Plugins": [], "Warnings": None}


def lines(info: "dict[str, Any]") -> "list[str]":
    """SystemInfo as people read it."""
    found = [f"Containers: {info['Containers']}"]
    found += [f" {state}: {info[f'Containers{state}']}" for state in ("Running", "Paused", "Stopped")]
    found.append(f"Images: {info['Images']}")
    found += _given(info, (("Server Version", "ServerVersion"), ("Storage Driver", "Driver")))
    found += [f" {name}: {value}" for name, value in info.get("DriverStatus") or ()]
    found += _given(
        info,
        (("Logging Driver", "LoggingDriver"), ("Cgroup Driver", "CgroupDriver"), ("Cgroup Version", "CgroupVersion")),
    )
    found.append("Plugins:")
    found += [f" {kind}: {' '.join(info['Plugins'].get(kind) or ())}" for kind in ("Volume", "Network", "Log")]
    if info.get("CDISpecDirs"):
        found += ["CDI spec directories:", *(f" {path}" for path in info["CDISpecDirs"])]
    found.append(f"Swarm: {info['Swarm']['LocalNodeState']}")
    found.append(f"Runtimes: {' '.join(sorted(info['Runtimes']))}")
    found.append(f"Default Runtime: {info['DefaultRuntime']}")
    found.append(f"Init Binary: {info['InitBinary']}")
    if info.get("SecurityOptions"):
        found.append("Security Options:")
        for option in info["SecurityOptions"]:
            pairs = dict(pair.partition("=")[::2] for pair in option.split(","))
            found.append(f" {pairs.get('name', option)}")
            if "profile" in pairs:
                found.append(f"  Profile: {pairs['profile']}")
    found += _given(info, _HOST)
    found.append(f"CPUs: {info['NCPU']}")
    found.append(f"Total Memory: {human.binary(info['MemTotal'])}")
    found += _given(info, (("Name", "Name"), ("ID", "ID")))
    found.append(f"Docker Root Dir: {info['DockerRootDir']}")
    found.append(f"Debug Mode: {_spoken(info['Debug'])}")
    found += _given(info, _PROXIES)
    if info.get("Labels"):
        found += ["Labels:", *(f" {label}" for label in info["Labels"])]
    found.append(f"Experimental: {_spoken(info['ExperimentalBuild'])}")
    found += _registries(info.get("RegistryConfig") or {})
    found.append(f"Live Restore Enabled: {_spoken(info['LiveRestoreEnabled'])}")
    if info.get("DefaultAddressPools"):
        pools = info["DefaultAddressPools"]
        found += ["Default Address Pools:", *(f"  Base: {pool['Base']}, Size: {pool['Size']}" for pool in pools)]
    if info.get("FirewallBackend"):
        found.append(f"Firewall Backend: {info['FirewallBackend']['Driver']}")
        found += [f" {name}: {value}" for name, value in info["FirewallBackend"].get("Info") or ()]
    return found


def _given(info: "dict[str, Any]", fields: "tuple[tuple[str, str], ...]") -> "list[str]":
    return [f"{title}: {info[name]}" for title, name in fields if info.get(name)]


def _registries(config: "dict[str, Any]") -> "list[str]":
    found = []
    indexes, networks = config.get("IndexConfigs") or {}, config.get("InsecureRegistryCIDRs") or []
    if indexes or networks:
        insecure = [index["Name"] for index in indexes.values() if not index.get("Secure")]
        found += ["Insecure Registries:", *(f" {name}" for name in [*insecure, *networks])]
    if config.get("Mirrors"):
        found += ["Registry Mirrors:", *(f" {mirror}" for mirror in config["Mirrors"])]
    return found


def _spoken(value: object) -> str:
    return "true" if value else "false"


INFO = Command(
    "info",
    _info,
    text="Show what the engine says of itself",
    example="knarr info --format '{{.ServerVersion}} on {{.KernelVersion}}'",
    maximum=0,
    options=(Option("-f --format", TEXT, "Format: json, or a Go template"),),
)
