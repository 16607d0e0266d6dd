"""Settings of one engine: where it keeps things, where it listens, what containers get by default.

Order, later wins: the defaults here, a JSON file (`/etc/knarr/config.json`, or the one named by
`KNARR_CONFIG`), the environment (`KNARR_DATA_ROOT`, `KNARR_RUN_ROOT`, `KNARR_HOST`, `KNARR_TLS_VERIFY`,
`KNARR_CERT_PATH`), and the flags of `knarr daemon`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from knarr.errors import InvalidArgument

__all__ = ["Config", "LogDefaults", "RegistrySettings", "load"]

DEFAULT_FILE = "/etc/knarr/config.json"
ENVIRONMENT = {"data_root": "KNARR_DATA_ROOT", "run_root": "KNARR_RUN_ROOT", "cert_path": "KNARR_CERT_PATH"}
TLS_HOST = "tcp://localhost:2376"  # where TLS is asked for and no host is named
Absolute = Annotated[str, StringConstraints(pattern=r"^/", max_length=4000)]


class LogDefaults(BaseModel):
    """What a json-file may grow to where no log option says, and where journald listens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_size: int = Field(default=20 * 1024 * 1024, ge=4096)  # bytes of one file
    max_file: int = Field(default=5, ge=1, le=1000)
    journal: Absolute = "/run/systemd/journal/socket"  # another one is that of a journal namespace


class RegistrySettings(BaseModel):
    """How to talk to one registry, by its host[:port]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    insecure: bool = False  # plain http, or https with a certificate that nobody vouches for
    mirrors: list[str] = Field(default_factory=list)  # asked first, in this order


class Config(BaseModel):
    """The settings of one engine. Frozen: a change is a restart of the daemon."""

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    data_root: Absolute = "/var/lib/knarr"
    run_root: Absolute = "/run/knarr"
    hosts: list[str] = Field(default_factory=list)  # none: knarr.sock under the run root
    group: str | None = None  # of the sockets' files; None: docker where there is one; empty: root
    tls: bool | None = None  # None: not said, which is more careful than False
    tlsverify: bool | None = None
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""
    cert_path: str = ""  # the directory of those three where they are not named; empty: ~/.docker
    log: LogDefaults = Field(default_factory=LogDefaults)
    log_driver: str = "json-file"  # of containers that name none
    log_opts: dict[str, str] = Field(default_factory=dict)  # of containers with that driver
    registries: dict[str, RegistrySettings] = Field(default_factory=dict)
    address_pools: list[str] = Field(default_factory=list)  # CIDRs for bridges; empty: the built-in list
    dns: list[str] = Field(default_factory=list)  # for containers, in place of the host's
    volume_timeout: float = Field(default=60, gt=0, le=3600)  # seconds that mounting, or a volume plugin, may take
    plugin_sockets: Absolute = "/run/docker/plugins"  # of volume plugins
    plugin_specs: list[Absolute] = ["/etc/docker/plugins", "/usr/lib/docker/plugins"]  # files that say where others are
    ipv6: bool = False  # of the default bridge
    fixed_cidr_v6: str = ""  # its IPv6 subnet; empty to have one chosen
    ip: str = "0.0.0.0"  # noqa: S104  where ports of containers on it are published that name no address of the host
    realtime: bool = True  # the event loop comes before other threads of the host, where the system allows it
    default_network_opts: dict[str, dict[str, str]] = Field(default_factory=dict)  # of new networks, by their driver

    @field_validator("address_pools", "fixed_cidr_v6")
    @classmethod
    def _subnets(cls, value: list[str] | str) -> list[str] | str:
        for text in value if isinstance(value, list) else [value]:
            if text:
                ipaddress.ip_network(text)
        return value

    @field_validator("fixed_cidr_v6")
    @classmethod
    def _roomy(cls, value: str) -> str:
        if value:
            network = ipaddress.ip_network(value)
            if network.version != 6 or network.prefixlen > 126:
                raise ValueError(f"{value} should be an IPv6 subnet of at most 126 bits, such as 2001:db8:1::/64")
        return value

    @field_validator("ip")
    @classmethod
    def _one_address(cls, value: str) -> str:
        return str(ipaddress.ip_address(value))

    @field_validator("data_root", "run_root")
    @classmethod
    def _plain(cls, value: str) -> str:
        return os.path.normpath(value)

    @model_validator(mode="after")
    def _ipv6_for_its_subnet(self) -> Config:
        if self.fixed_cidr_v6 and not self.ipv6:
            raise ValueError("fixed_cidr_v6 (--fixed-cidr-v6) needs ipv6 (--ipv6)")
        return self

    @cached_property
    def addresses(self) -> list[str]:
        """Where the API listens, as api/listen.py reads it."""
        return self.hosts or [TLS_HOST if self.use_tls else f"unix://{self.run_root}/knarr.sock"]

    @cached_property
    def use_tls(self) -> bool:
        """Whether TCP is spoken with TLS: --tlsverify says so as well, whatever its value."""
        return bool(self.tls) or self.tlsverify is not None

    @cached_property
    def verify_clients(self) -> bool:
        """Whether a client needs a certificate of the authority's: unless --tlsverify=false."""
        return self.tlsverify is not False

    def tls_file(self, setting: str, name: str) -> str:
        """The path of a PEM file: what the setting says, or its usual name in the usual directory."""
        path: str = getattr(self, setting)
        return path or os.path.join(self.cert_path or os.path.expanduser("~/.docker"), name)

    @cached_property
    def engine_id(self) -> str:
        """Eight hex digits that name what this engine makes on the host (ARCHITECTURE.md, On disk)."""
        return hashlib.sha256(self.run_root.encode()).hexdigest()[:8]


def load(**flags: Any) -> Config:
    """The settings from file, environment and flags; a flag that is None was not given.

    Raises InvalidArgument that names the setting and where it came from.
    """
    values: dict[str, Any] = {}
    path = os.environ.get("KNARR_CONFIG", "")
    source = path or DEFAULT_FILE
    try:
        with open(source, encoding="utf-8") as file:
            loaded = json.load(file)
    except FileNotFoundError:
        if path:
            raise InvalidArgument(f"{path}: the file that KNARR_CONFIG names does not exist") from None
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{source}: cannot be read as JSON: {error}") from error
    else:
        if not isinstance(loaded, dict):
            raise InvalidArgument(f"{source}: must hold one JSON object")
        values |= loaded
    values |= {name: os.environ[variable] for name, variable in ENVIRONMENT.items() if os.environ.get(variable)}
    if os.environ.get("KNARR_HOST"):
        values["hosts"] = [os.environ["KNARR_HOST"]]
    if os.environ.get("KNARR_TLS_VERIFY"):
        values["tlsverify"] = True
    values |= {name: value for name, value in flags.items() if value is not None}
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(str(part) for part in first["loc"])
        raise InvalidArgument(
            f"setting {setting}: {first['msg']} (from {source}, the environment or a flag)"
        ) from error
