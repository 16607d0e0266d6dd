"""version, info, daemon."""

import os

from knarr.cli import human, values
from knarr.cli.command import FLAG, INT, LIST, TEXT, Command, Option
from knarr.cli.terminal import say, show
from knarr.errors import KnarrError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client

_FORMAT = Option("-f --format", TEXT, "Format: json, or a Go template")


def _version(client: "Client", options: "dict[str, Any]", _arguments: "list[str]") -> int:
    import sys

    from knarr import __version__
    from knarr.client.engine import API_VERSION

    own = {
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "PythonVersion": sys.version.split()[0],
        "Os": "linux",
        "Arch": os.uname().machine,
    }
    try:
        server, failure = client.version(), None
    except KnarrError as error:
        server, failure = None, error
    if options["format"]:
        _formatted({"Client": own, "Server": server}, options["format"])
    else:
        _section("Client", own)
        if server is not None:
            names = ("Version", "ApiVersion", "MinAPIVersion", "Os", "Arch", "KernelVersion")
            show("")
            _section("Server", {name: server[name] for name in names if name in server})
    if failure is not None:
        say(f"knarr: {failure}")
        return 1
    return 0


def _section(title: str, values: "dict[str, Any]") -> None:
    show(f"{title}:")
    for name, value in values.items():
        show(f" {name + ':':<16} {value}")


def _formatted(value: "Any", form: str) -> None:
    from knarr.cli.template_functions import to_json

    if form == "json":
        show(to_json(value))
        return
    from knarr.cli.template import Template

    show(Template(form).render(value))


_INFO = (
    ("ID", "ID"),
    ("Name", "Name"),
    ("Server Version", "ServerVersion"),
    ("Containers", "Containers"),
    (" Running", "ContainersRunning"),
    (" Paused", "ContainersPaused"),
    (" Stopped", "ContainersStopped"),
    ("Images", "Images"),
    ("Storage Driver", "Driver"),
    ("Logging Driver", "LoggingDriver"),
    ("Cgroup Driver", "CgroupDriver"),
    ("Cgroup Version", "CgroupVersion"),
    ("Security Options", "SecurityOptions"),
    ("Kernel Version", "KernelVersion"),
    ("Operating System", "OperatingSystem"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
    ("Total Memory", "MemTotal"),
    ("Root Dir", "DockerRootDir"),
)


def _info(client: "Client", options: "dict[str, Any]", _arguments: "list[str]") -> int:
    info = client.info()
    if options["format"]:
        _formatted(info, options["format"])
        return 0
    for title, name in _INFO:
        value = info.get(name)
        if value is None:
            continue
        if name == "MemTotal":
            value = human.binary(value)
        show(f"{title}: {' '.join(value) if isinstance(value, list) else value}")
    for warning in info.get("Warnings") or ():
        say(warning)
    return 0


_PATHS = ("data_root", "run_root", "tlscacert", "tlscert", "tlskey")


def _daemon(_client: "Client", options: "dict[str, Any]", _arguments: "list[str]") -> int:
    from knarr import daemon

    ready_fd = options.pop("ready_fd")
    for name in _PATHS:
        options[name] = os.path.abspath(options[name]) if options[name] else None
    options["hosts"] = options["hosts"] or None
    options["log_opts"] = values.pairs(options["log_opts"]) or None
    return daemon.main(ready_fd, options)


VERSION = Command(
    "version",
    _version,
    text="Show the versions of client and engine",
    example="knarr version --format '{{.Server.Version}}'",
    maximum=0,
    options=(_FORMAT,),
)
INFO = Command(
    "info",
    _info,
    text="Show what the engine says of itself",
    example="knarr info",
    maximum=0,
    options=(_FORMAT,),
)
DAEMON = Command(
    "daemon",
    _daemon,
    text="Run the engine's daemon in the foreground (other commands start one when none listens)",
    example="knarr daemon --host unix:///run/knarr/knarr.sock --host tcp://0.0.0.0:2376 --tlsverify",
    maximum=0,
    options=(
        Option("--data-root", TEXT, "Where images and containers are kept (default /var/lib/knarr)"),
        Option("--run-root", TEXT, "Where state is that a reboot may lose (default /run/knarr)"),
        Option(
            "-H --host",
            LIST,
            "Where to listen: unix://PATH, tcp://NAME:PORT or fd:// for systemd's sockets (default unix://RUN_ROOT/knarr.sock)",
            key="hosts",
        ),
        Option("-G --group", TEXT, "Group of the Unix socket (default docker, where there is such a group)"),
        Option("--tls", FLAG, "Use TLS; implied by --tlsverify. --tls=false: TCP in the clear is meant", default=None),
        Option("--tlsverify", FLAG, "Use TLS, and ask clients for a certificate", default=None),
        Option("--tlscacert", TEXT, "Whose signature clients' certificates need (default ~/.docker/ca.pem)"),
        Option("--tlscert", TEXT, "The daemon's certificate (default ~/.docker/cert.pem)"),
        Option("--tlskey", TEXT, "The key of its certificate (default ~/.docker/key.pem)"),
        Option("--log-driver", TEXT, "Default driver for container logs (default json-file)"),
        Option("--log-opt", LIST, "Default log driver options for containers (name=value)", key="log_opts"),
        Option("--ready-fd", INT, "A descriptor that gets one byte when the daemon is ready", hidden=True),
    ),
)
