"""daemon."""

import os

from knarr.cli import values
from knarr.cli.command import FLAG, INT, LIST, TEXT, Command, Option
from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client


_PATHS = ("data_root", "run_root", "tlscacert", "tlscert", "tlskey")


def _daemon(_client: "Client", options: "dict[str, Any]", _arguments: "list[str]") -> int:
    from knarr import daemon

    ready_fd = options.pop("ready_fd")
    for name in _PATHS:
        options[name] = os.path.abspath(options[name]) if options[name] else None
    options["hosts"] = options["hosts"] or None
    options["default_network_opts"] = _by_driver(options["default_network_opts"]) or None
    options["log_opts"] = values.pairs(options["log_opts"]) or None
    return daemon.main(ready_fd, options)


def _by_driver(given: "list[str]") -> "dict[str, dict[str, str]]":
    """The options of each driver, from "bridge=com.docker.network.bridge.host_binding_ipv4=127.0.0.1"."""
    found: dict[str, dict[str, str]] = {}
    for text in given:
        driver, _, option = text.partition("=")
        name, equals, value = option.partition("=")
        if not driver or not name or not equals:
            raise InvalidArgument(f'invalid argument "{text}" for "--default-network-opt": it is driver=name=value')
        found.setdefault(driver, {})[name] = value
    return found


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
        Option("--ip", TEXT, "Host IP for port publishing from the default bridge network (default 0.0.0.0)"),
        Option("--ipv6", FLAG, "Enable IPv6 networking for the default bridge network", default=None),
        Option("--fixed-cidr-v6", TEXT, "IPv6 subnet for the default bridge network"),
        Option(
            "--default-network-opt",
            LIST,
            "Default network options of new networks (driver=name=value)",
            key="default_network_opts",
        ),
        Option("--log-driver", TEXT, "Default driver for container logs (default json-file)"),
        Option("--log-opt", LIST, "Default log driver options for containers (name=value)", key="log_opts"),
        Option("--ready-fd", INT, "A descriptor that gets one byte when the daemon is ready", hidden=True),
    ),
)
