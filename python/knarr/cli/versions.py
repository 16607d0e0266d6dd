"""`knarr version`."""

import os

from knarr.cli import documents
from knarr.cli.command import TEXT, Command, Option
from knarr.cli.terminal import say, show
from knarr.errors import KnarrError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client

WIDTH = 20  # of the column of titles
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def _version(client: "Client", options: "dict[str, Any]", _arguments: "list[str]") -> int:
    import sys

    from knarr import __version__
    from knarr.client.engine import API_VERSION

    template = documents.compiled(options["format"]) if options["format"] else None
    machine = os.uname().machine
    own = {
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "DefaultAPIVersion": API_VERSION,
        "PythonVersion": sys.version.split()[0],
        "Os": "linux",
        "Arch": _ARCHITECTURES.get(machine, machine),
        "Context": "default",
    }
    try:
        server, failure = client.version(), None
    except KnarrError as error:
        server, failure = None, error
    if options["format"]:
        documents.write({"Client": own, "Server": server}, template)
    else:
        _client(own)
        if server is not None:
            show("")
            _server(server)
    if failure is not None:
        say(f"knarr: {failure}")
        return 1
    return 0


def _client(own: "dict[str, Any]") -> None:
    show("Client:")
    _line(1, "Version", own["Version"])
    _line(1, "API version", own["ApiVersion"])
    _line(1, "Python version", own["PythonVersion"])
    _line(1, "OS/Arch", f"{own['Os']}/{own['Arch']}")


def _server(server: "dict[str, Any]") -> None:
    name = (server.get("Platform") or {}).get("Name")
    show(f"Server: {name}" if name else "Server:")
    for component in server.get("Components") or ():
        details = component.get("Details") or {}
        show(f" {component['Name']}:")
        _line(2, "Version", component["Version"])
        if component["Name"] != "Engine":
            for key in sorted(details):
                _line(2, key, details[key])
            continue
        _line(2, "API version", f"{details.get('ApiVersion')} (minimum version {details.get('MinAPIVersion')})")
        for title, key in (
            ("Python version", "PythonVersion"),
            ("Go version", "GoVersion"),
            ("Git commit", "GitCommit"),
            ("Built", "BuildTime"),
        ):
            if details.get(key):
                _line(2, title, details[key])
        _line(2, "OS/Arch", f"{details.get('Os')}/{details.get('Arch')}")
        _line(2, "Experimental", details.get("Experimental", "false"))


def _line(depth: int, title: str, value: str) -> None:
    show(f"{' ' * depth + title + ':':<{WIDTH}}{value}")


VERSION = Command(
    "version",
    _version,
    text="Show the versions of client and engine",
    example="knarr version --format '{{.Server.Version}}'",
    maximum=0,
    options=(Option("-f --format", TEXT, "Format: json, or a Go template"),),
)
