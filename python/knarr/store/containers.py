"""Container records: what a container was asked to be, and what became of it.

`Config` and `HostConfig` keep the shape and the names of the Docker Engine API (definitions
ContainerConfig, HostConfig and Resources): they are validated once when a request comes in, stored as
they are, and given back by inspect. Times are integers, nanoseconds since the epoch, 0 for never.

A record is two JSON texts in one row: what changes rarely (`record`) and its state.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from typing_extensions import NotRequired, TypedDict

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from knarr.store.database import Database

__all__ = [
    "CONFIG_DEFAULTS",
    "HOST_DEFAULTS",
    "Config",
    "ContainerRecord",
    "Containers",
    "Device",
    "Endpoint",
    "Health",
    "HostConfig",
    "LogConfig",
    "Mount",
    "MountPoint",
    "PortBinding",
    "ProbeResult",
    "RestartPolicy",
    "State",
    "Ulimit",
]


class Config(TypedDict):
    """What the container is, wherever it runs."""

    Hostname: str
    Domainname: str
    User: str
    AttachStdin: bool
    AttachStdout: bool
    AttachStderr: bool
    ExposedPorts: dict[str, dict[str, Any]] | None
    Tty: bool
    OpenStdin: bool
    StdinOnce: bool
    Env: list[str] | None
    Cmd: list[str] | None
    Healthcheck: Healthcheck | None
    ArgsEscaped: bool
    Image: str
    Volumes: dict[str, dict[str, Any]] | None
    WorkingDir: str
    Entrypoint: list[str] | None
    NetworkDisabled: bool
    MacAddress: str
    OnBuild: list[str] | None
    Labels: dict[str, str] | None
    StopSignal: str
    StopTimeout: int | None
    Shell: list[str] | None


class LogConfig(TypedDict, total=False):
    """The log driver ("" and "json-file" are the same) and its options."""

    Type: str
    Config: dict[str, str] | None


class RestartPolicy(TypedDict, total=False):
    """`no`, `on-failure`, `always` or `unless-stopped`."""

    Name: str
    MaximumRetryCount: int


class PortBinding(TypedDict, total=False):
    """One place on the host; an empty port lets us choose."""

    HostIp: str
    HostPort: str


class Ulimit(TypedDict, total=False):
    """A resource limit by its short name, such as nofile."""

    Name: str
    Soft: int
    Hard: int


class Device(TypedDict, total=False):
    """A device of the host for the container."""

    PathOnHost: str
    PathInContainer: str
    CgroupPermissions: str


class BlkioWeight(TypedDict, total=False):
    """The weight of a block device."""

    Path: str
    Weight: int


class BlkioRate(TypedDict, total=False):
    """Bytes or operations a second of a block device."""

    Path: str
    Rate: int


class DeviceRequest(TypedDict, total=False):
    """Devices that a driver would give."""

    Driver: str
    Count: int
    DeviceIDs: list[str] | None
    Capabilities: list[list[str]] | None
    Options: dict[str, str] | None


class Healthcheck(TypedDict, total=False):
    """A test of the container's health; times are nanoseconds."""

    Test: list[str] | None
    Interval: int
    Timeout: int
    StartPeriod: int
    StartInterval: int
    Retries: int


class BindOptions(TypedDict, total=False):
    """Of a mount of type bind."""

    Propagation: str
    NonRecursive: bool
    CreateMountpoint: bool
    ReadOnlyNonRecursive: bool
    ReadOnlyForceRecursive: bool
    IDMap: str  # knarr's own: "match-user"


class Driver(TypedDict, total=False):
    """A volume's driver."""

    Name: str
    Options: dict[str, str] | None


class VolumeOptions(TypedDict, total=False):
    """Of a mount of type volume."""

    NoCopy: bool
    Labels: dict[str, str] | None
    Subpath: str
    DriverConfig: Driver | None


class TmpfsOptions(TypedDict, total=False):
    """Of a mount of type tmpfs; Mode is octal written as a decimal number of Go's file modes: permission bits."""

    SizeBytes: int
    Mode: int
    Options: list[list[str]] | None


class ImageOptions(TypedDict, total=False):
    """Of a mount of type image."""

    Subpath: str


class Mount(TypedDict, total=False):
    """A mount as asked for by `--mount`."""

    Target: str
    Source: str
    Type: str
    ReadOnly: bool
    Consistency: str
    BindOptions: BindOptions | None
    VolumeOptions: VolumeOptions | None
    TmpfsOptions: TmpfsOptions | None
    ImageOptions: ImageOptions | None
    ClusterOptions: dict[str, Any] | None


class HostConfig(TypedDict):
    """What the container is allowed and given on this host."""

    Binds: list[str] | None
    ContainerIDFile: str
    LogConfig: LogConfig
    NetworkMode: str
    PortBindings: dict[str, list[PortBinding] | None] | None
    RestartPolicy: RestartPolicy
    AutoRemove: bool
    VolumeDriver: str
    VolumesFrom: list[str] | None
    Mounts: list[Mount] | None
    ConsoleSize: list[int]
    Annotations: dict[str, str] | None
    CapAdd: list[str] | None
    CapDrop: list[str] | None
    CgroupnsMode: str
    Dns: list[str] | None
    DnsOptions: list[str] | None
    DnsSearch: list[str] | None
    ExtraHosts: list[str] | None
    GroupAdd: list[str] | None
    IpcMode: str
    Cgroup: str
    Links: list[str] | None
    OomScoreAdj: int
    PidMode: str
    Privileged: bool
    PublishAllPorts: bool
    ReadonlyRootfs: bool
    SecurityOpt: list[str] | None
    StorageOpt: dict[str, str] | None
    Tmpfs: dict[str, str] | None
    UTSMode: str
    UsernsMode: str
    ShmSize: int
    Sysctls: dict[str, str] | None
    Runtime: str
    Umask: int | None
    Isolation: str
    MaskedPaths: list[str] | None
    ReadonlyPaths: list[str] | None
    CpuShares: int
    Memory: int
    CgroupParent: str
    BlkioWeight: int
    BlkioWeightDevice: list[BlkioWeight] | None
    BlkioDeviceReadBps: list[BlkioRate] | None
    BlkioDeviceWriteBps: list[BlkioRate] | None
    BlkioDeviceReadIOps: list[BlkioRate] | None
    BlkioDeviceWriteIOps: list[BlkioRate] | None
    CpuPeriod: int
    CpuQuota: int
    CpuRealtimePeriod: int
    CpuRealtimeRuntime: int
    CpusetCpus: str
    CpusetMems: str
    Devices: list[Device] | None
    DeviceCgroupRules: list[str] | None
    DeviceRequests: list[DeviceRequest] | None
    KernelMemory: int
    KernelMemoryTCP: int
    MemoryReservation: int
    MemorySwap: int
    MemorySwappiness: int | None
    NanoCpus: int
    OomKillDisable: bool | None
    Init: bool | None
    PidsLimit: int | None
    Ulimits: list[Ulimit] | None
    CpuCount: int
    CpuPercent: int
    IOMaximumIOps: int
    IOMaximumBandwidth: int
    Knarr: dict[str, Any] | None  # ours: {"HostOverlay": bool, "OverlaySize": bytes}


def _zero(annotation: str) -> Any:
    """What a field holds that was not given."""
    if annotation.endswith("| None"):
        return None
    zero: dict[str, Any] = {"str": "", "bool": False, "int": 0, "list[int]": [0, 0]}
    return zero.get(annotation, {})


CONFIG_DEFAULTS: dict[str, Any] = {name: _zero(kind.__forward_arg__) for name, kind in Config.__annotations__.items()}
HOST_DEFAULTS: dict[str, Any] = {name: _zero(kind.__forward_arg__) for name, kind in HostConfig.__annotations__.items()}


class Wish(TypedDict):
    """What a volume is to be that may have to be made."""

    driver: str
    options: dict[str, str]
    labels: dict[str, str]


class MountPoint(TypedDict):
    """A mount as it was resolved when the container was made."""

    type: str  # bind, volume, tmpfs, image
    name: str  # of the volume, or of the image as it was asked for
    source: str  # on the host; of an image its ID; empty for volumes and tmpfs
    destination: str
    mode: str  # the options as they were written in a bind, such as "ro,rslave"
    read_only: bool
    recursive_read_only: bool
    propagation: str  # empty: rprivate
    recursive: bool
    no_copy: bool
    id_map: NotRequired[str]  # of a bind: "match-user", where its owner is to be the container's user
    subpath: NotRequired[str]  # of a volume or an image: what of it is mounted
    driver: NotRequired[str]  # of a volume that is none of the local driver's
    wish: NotRequired[Wish]  # of a volume, until it is there
    options: list[str]  # of a tmpfs
    listed: bool  # `--tmpfs` mounts are not listed by inspect


class Endpoint(TypedDict):
    """The container's place in one network. Address and what follows from it are empty while it does not run."""

    network_id: str
    endpoint_id: str
    address: str
    prefix: int
    gateway: str
    mac: str
    wanted_address: str
    wanted_mac: str
    aliases: list[str]
    links: NotRequired[list[str]]  # "<name>:<alias>": what the container alone calls another of the network
    driver_opts: NotRequired[dict[str, str]]
    gw_priority: NotRequired[int]
    address6: NotRequired[str]  # these as those above, of IPv6
    prefix6: NotRequired[int]
    gateway6: NotRequired[str]
    wanted_address6: NotRequired[str]
    interface: NotRequired[str]  # its name inside, such as eth0
    lan: NotRequired[bool]  # on an interface of the host's: nothing is published there
    leads_out: NotRequired[bool]  # such a one, with a way out whether or not there is a gateway
    pending: NotRequired[str]  # connect or disconnect: the supervisor may not know of it yet


class ProbeResult(TypedDict):
    """What came of one run of a health check."""

    start_ns: int
    end_ns: int
    exit_code: int  # -1 where it could not be run, or not to its end
    output: str


class Health(TypedDict):
    """What a container's health checks have found."""

    status: str  # starting healthy unhealthy
    failing_streak: int
    log: list[ProbeResult]  # the last five, oldest first
    probe: str  # the exec that runs now; empty between probes


@dataclass(slots=True)
class State:
    """What became of the container."""

    status: str = "created"  # created running paused restarting exited dead
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_ns: int = 0
    finished_ns: int = 0
    restart_count: int = 0
    limits_pending: bool = False  # the record has limits that its control group may not have yet
    pause_passes: bool = False  # where it is paused, that is for a commit: the next daemon thaws it
    manually_stopped: bool = False  # somebody asked for it to stop: restart policies leave it alone
    ports: list[list[Any]] = field(default_factory=list)  # [protocol, host ip, host port, container port]
    networks: dict[str, Endpoint] = field(default_factory=dict)
    health: Health | None = None  # of a container that has no check, or has never been started

    @property
    def running(self) -> bool:
        """Its process exists."""
        return self.status in ("running", "paused")


@dataclass(slots=True)
class ContainerRecord:
    """One container."""

    id: str
    name: str  # without a slash
    image_id: str  # sha256:..., empty for a root file system of no image
    created_ns: int
    config: Config
    host: HostConfig
    path: str  # the program
    args: list[str]
    platform: str
    manifest_digest: str
    mounts: list[MountPoint]
    anonymous_volumes: list[str]
    state: State


_STATE_FIELDS = tuple(item.name for item in fields(State))
_RECORD_FIELDS = tuple(
    item.name for item in fields(ContainerRecord) if item.name not in ("id", "name", "image_id", "state")
)


class Containers:
    """The table of containers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing, together with other records of the same database."""
        return self._database.transaction()

    def insert(self, record: ContainerRecord) -> None:
        """Store a new container; sqlite3.IntegrityError where its id or name is taken."""
        self._database.execute(
            "INSERT INTO container (id, name, image_id, record, state) VALUES (?, ?, ?, ?, ?)",
            (
                record.id,
                record.name,
                record.image_id,
                _dump(record, _RECORD_FIELDS),
                _dump(record.state, _STATE_FIELDS),
            ),
        )

    def update_state(self, record: ContainerRecord) -> None:
        """Store the state alone."""
        self._database.execute(
            "UPDATE container SET state = ? WHERE id = ?", (_dump(record.state, _STATE_FIELDS), record.id)
        )

    def update_record(self, record: ContainerRecord) -> None:
        """Store all but the state, the name and the image."""
        self._database.execute(
            "UPDATE container SET record = ? WHERE id = ?", (_dump(record, _RECORD_FIELDS), record.id)
        )

    def rename(self, record: ContainerRecord, name: str) -> None:
        """Store another name; sqlite3.IntegrityError where it is taken."""
        self._database.execute("UPDATE container SET name = ? WHERE id = ?", (name, record.id))
        record.name = name

    def delete(self, container_id: str) -> None:
        """Forget a container."""
        self._database.execute("DELETE FROM container WHERE id = ?", (container_id,))

    def load(self) -> list[ContainerRecord]:
        """Every container, oldest first."""
        found = []
        for row in self._database.rows("SELECT id, name, image_id, record, state FROM container"):
            values = json.loads(row[3])
            values["config"] = CONFIG_DEFAULTS | values["config"]
            values["host"] = HOST_DEFAULTS | values["host"]
            found.append(
                ContainerRecord(id=row[0], name=row[1], image_id=row[2], state=State(**json.loads(row[4])), **values)
            )
        return sorted(found, key=lambda record: record.created_ns)


def _dump(item: object, names: tuple[str, ...]) -> str:
    return json.dumps({name: getattr(item, name) for name in names}, separators=(",", ":"))
