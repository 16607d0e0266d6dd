"""What a request for a container may hold: everything else is refused, by the field's name."""

import pytest

from knarr.api.wire.containers import parse_time, status_text
from knarr.api.wire.create import create_request
from knarr.engine.containers import detach, merge, signals
from knarr.engine.containers.create import check_name
from knarr.engine.containers.names import FIRST, SECOND, random_name
from knarr.engine.containers.offered import _LIMITS, Offered, discard
from knarr.engine.containers.request import check, host_ports, parse_port, security
from knarr.errors import InvalidArgument, KnarrError, Unsupported
from knarr.store.containers import State
from tests.unit.engine_records import config, host


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"Memory": 1024}, "Minimum memory limit allowed is 6MB"),
        ({"Memory": 64 << 20, "MemorySwap": 1 << 20}, "larger than memory limit"),
        ({"MemorySwap": 64 << 20}, "always set the Memory limit"),
        ({"NanoCpus": 10**15}, "range of CPUs"),
        ({"NanoCpus": 10**9, "CpuQuota": 5000}, "Nano CPUs and CPU Quota"),
        ({"CpuPeriod": 5}, "CPU cfs period"),
        ({"CpusetCpus": "x"}, "Invalid value x"),
        ({"OomScoreAdj": 2000}, "range for oom score adj"),
        ({"ShmSize": -1}, "SHM size"),
        ({"RestartPolicy": {"Name": "sometimes"}}, "unknown policy 'sometimes'"),
        ({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}, "maximum retry count"),
        ({"RestartPolicy": {"Name": "always"}, "AutoRemove": True}, "can't create 'AutoRemove'"),
        ({"PidMode": "nonsense"}, "invalid PID mode"),
        ({"IpcMode": "nonsense"}, "invalid IPC mode"),
        ({"UTSMode": "nonsense"}, "invalid UTS mode"),
        ({"CgroupnsMode": "nonsense"}, "invalid cgroup namespace mode"),
        ({"Sysctls": {"kernel.panic": "1"}}, "kernel.panic"),
        ({"Sysctls": {"net.core.somaxconn": "1"}, "NetworkMode": "host"}, "host network namespace"),
        ({"SecurityOpt": ["nonsense"]}, "invalid --security-opt"),
        ({"Ulimits": [{"Name": "nonsense", "Soft": 1, "Hard": 1}]}, "invalid ulimit type"),
        ({"Ulimits": [{"Name": "nofile", "Soft": 2, "Hard": 1}]}, "soft limit"),
        ({"PortBindings": {"99999/tcp": []}}, "invalid port specification"),
        ({"PortBindings": {"80/tcp": [{"HostIp": "nonsense"}]}}, "invalid IP address"),
        ({"PortBindings": {"80/tcp": [{"HostIp": "fe80::1%eth0"}]}}, "invalid IP address"),
        ({"PortBindings": {"80/tcp": [{"HostPort": "http"}]}}, "invalid host port"),
        ({"ExtraHosts": ["nonsense"]}, "bad format for add-host"),
        ({"Dns": ["nonsense"]}, "not a valid DNS server"),
        ({"DeviceCgroupRules": ["nonsense"]}, "invalid device cgroup rule"),
        ({"Runtime": "nonsense"}, "unknown or invalid runtime name: nonsense"),
        ({"CapAdd": ["nonsense"]}, "unknown capability"),
        ({"LogConfig": {"Type": "nonsense"}}, "no log driver named 'nonsense'"),
        ({"LogConfig": {"Type": "json-file", "Config": {"max-size": "x"}}}, "invalid size: 'x'"),
        ({"Umask": 0o1000}, "Umask"),
        ({"StorageOpt": {"size": "some"}}, "invalid size: 'some'"),
        ({"StorageOpt": {"size": "1G"}, "Knarr": {"HostOverlay": True}}, "Knarr.OverlaySize"),
        ({"StorageOpt": {"nonsense": "1G"}}, "Unknown option nonsense"),
        ({"UsernsMode": "private"}, "invalid userns mode: private"),
        (
            {"DeviceRequests": [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu", "x"]]}]},
            r'could not select device driver "nvidia" with capabilities: \[\[gpu x\]\]',
        ),
        ({"IOMaximumIOps": 1}, "QoS maximum IOPs"),
        ({"IOMaximumBandwidth": 1}, "QoS maximum bandwidth"),
        ({"Isolation": "hyperv"}, "linux only supports 'default'"),
        ({"CgroupParent": "/a/../b"}, "invalid cgroup parent"),
        ({"IpcMode": "container:"}, "invalid IPC mode"),
        ({"BlkioDeviceReadBps": [{"Path": "sda", "Rate": 1}]}, "BlkioDeviceReadBps.*absolute path"),
        ({"BlkioDeviceWriteIOps": [{"Path": "/dev/sda", "Rate": 0}]}, "BlkioDeviceWriteIOps.*rate above 0"),
        ({"BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 7}]}, "BlkioWeightDevice.*weight from 10 to 1000"),
        ({"CpusetCpus": "0,9000"}, "below 8192"),
        ({"CpusetCpus": "0,4000"}, "Requested CPUs are not available - requested 0,4000"),
        ({"CpusetMems": "77"}, "Requested memory nodes are not available"),
        ({"CpuRealtimePeriod": 10, "CpuRealtimeRuntime": 11}, "cpu real-time runtime|does not support CPU real-time"),
        ({"Annotations": {"": "x"}}, "empty string is not permitted"),
        ({"Annotations": {"knarr.init": "true"}}, "knarr.init"),
        ({"MaskedPaths": ["proc/x"]}, "MaskedPaths"),
        ({"ReadonlyPaths": ["x"]}, "ReadonlyPaths"),
        ({"Sysctls": {"kernel.msgmax": "1"}, "IpcMode": "container:x"}, "host ipc namespace"),
        ({"Knarr": {"Nonsense": 1}}, "Nonsense"),
        ({"Knarr": {"HostOverlay": True}}, "leave Image empty"),
    ],
)
def test_what_makes_no_sense_is_refused(values, words):
    with pytest.raises(InvalidArgument, match=words):
        check(config(), host(**values))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("80", (80, None)), ("0", (0, None)), ("8000-8010", (8000, 8010)), ("80-80", (80, None)), ("0-0", (0, None))],
)
def test_host_ports(text, expected):
    assert host_ports(text) == expected
    check(config(), host(PortBindings={"80/tcp": [{"HostPort": text}]}))


@pytest.mark.parametrize(
    "text", ["x", "-1", "65536", "80-", "-80", "80-79", "0-5", "1-65536", "8 0", "1-2-3", "\u0661"]
)
def test_what_is_no_host_port(text):
    with pytest.raises(InvalidArgument, match="invalid host port"):
        check(config(), host(PortBindings={"80/tcp": [{"HostPort": text}]}))


@pytest.mark.parametrize(
    "values",
    [
        {"Cgroup": "container:x"}, {"SecurityOpt": ["apparmor=custom"]},
    ],
    ids=lambda values: next(iter(values)),
)  # fmt: skip
def test_what_is_not_done_is_refused_by_name(values):
    with pytest.raises(Unsupported, match="(?i)" + "|".join([*values, "port", "apparmor"])):
        check(config(), host(**values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"WorkingDir": "relative"}, "needs to be an absolute path"),
        ({"StopSignal": "NONSENSE"}, "invalid signal: NONSENSE"),
        ({"Env": ["=x"]}, "invalid environment variable"),
        ({"Hostname": "a b"}, "invalid hostname"),
        ({"Hostname": "a\n1.2.3.4 b"}, "invalid hostname"),
        ({"Hostname": "x" * 65}, "too long .maximum 64 bytes"),
        ({"ExposedPorts": {"0/tcp": {}}}, "invalid port"),
        ({"Cmd": ["a\0b"]}, "NUL"),
        ({"MacAddress": "01:02:03:04:05:06"}, "invalid MAC"),
        ({"Healthcheck": {"Test": ["CMD"], "Interval": 1}}, "Interval in Healthcheck"),
    ],
)
def test_bad_config_is_refused(values, words):
    with pytest.raises(KnarrError, match=words):
        check(config(**values), host())


def test_the_body_keeps_what_was_given_and_fills_the_rest():
    request = create_request(
        {
            "Image": "x",
            "Cmd": "true",
            "Entrypoint": None,
            "Tty": True,
            "Unknown": "",
            "HostConfig": {"Memory": 7, "Binds": None, "Later": []},
        },
        "n",
        None,
    )
    assert request.config["Cmd"] == ["true"]
    assert request.config["Tty"] is True
    assert request.config["Entrypoint"] is None
    assert request.host["Memory"] == 7
    assert request.host["CapAdd"] is None
    assert request.name == "n"


@pytest.mark.parametrize(
    "body",
    [
        {"Unknown": "x"}, {"HostConfig": {"Unknown": 1}}, {"Healthcheck": {"Unknown": 1}}, {"HostConfig": {"LogConfig": {"Unknown": "x"}}},
        {"HostConfig": {"Mounts": [{"Unknown": True}]}}, {"HostConfig": {"Mounts": [{"BindOptions": {"Unknown": True}}]}},
        {"HostConfig": {"PortBindings": {"80/tcp": [{"Unknown": "x"}]}}}, {"HostConfig": {"Ulimits": [{"Unknown": 1}]}},
        {"HostConfig": {"Mounts": [{"VolumeOptions": {"DriverConfig": {"Unknown": 1}}}]}}, {"HostConfig": {"DeviceRequests": [{"Unknown": 1}]}},
        {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"IPAMConfig": {"Unknown": "1.2.3.4"}}}}}, {"NetworkingConfig": {"Unknown": 1}},
    ],
)  # fmt: skip
def test_an_unknown_field_is_refused_by_name(body):
    with pytest.raises(InvalidArgument, match="Unknown"):
        create_request(body, "", None)


@pytest.mark.parametrize(
    "body",
    [
        {"Cmd": 7},
        {"Env": "A=1"},
        {"HostConfig": {"Memory": "7"}},
        {"HostConfig": {"Privileged": 1}},
        {"HostConfig": 7},
        {"HostConfig": [1]},
        {"NetworkingConfig": 7},
        {"HostConfig": {"Mounts": {}}},
        {"HostConfig": {"Mounts": [7]}},
        {"HostConfig": {"Mounts": [{"BindOptions": {"NonRecursive": "yes"}}]}},
        {"Healthcheck": []},
        {"ExposedPorts": ["80"]},
    ],
)
def test_a_wrong_type_is_refused(body):
    with pytest.raises((ValueError, InvalidArgument)):
        create_request(body, "", None)


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "expected"),
    [
        (None, None, ["/e", "c"]),
        (None, ["x"], ["/e", "x"]),
        (["y"], None, ["y"]),  # an entrypoint of one's own takes the image's command away
        (["y"], ["x"], ["y", "x"]),
        ([""], ["x"], ["x"]),
    ],
)
def test_entrypoint_and_command_merge_as_dockers(entrypoint, cmd, expected):
    found = config(Entrypoint=entrypoint, Cmd=cmd)
    merge.merge(found, {"Entrypoint": ["/e"], "Cmd": ["c"]})
    path, args = merge.command(found)
    assert [path, *args] == expected


def test_an_image_adds_and_does_not_override():
    found = config(Env=["A=mine"], Labels={"l": "mine"}, User="me", WorkingDir="")
    merge.merge(
        found,
        {
            "Env": ["A=theirs", "B=2"],
            "Labels": {"l": "theirs", "m": "2"},
            "User": "them",
            "WorkingDir": "/w",
            "ExposedPorts": {"80/tcp": {}},
        },
    )
    assert found["Env"] == ["A=mine", "B=2"]
    assert found["Labels"] == {"l": "mine", "m": "2"}
    assert found["User"] == "me"
    assert found["WorkingDir"] == "/w"
    assert found["ExposedPorts"] == {"80/tcp": {}}


def test_no_command_at_all():
    with pytest.raises(InvalidArgument, match="no command specified"):
        merge.command(config())


@pytest.mark.parametrize(
    ("text", "number"), [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+3", 37), ("RTMAX", 64)]
)
def test_signals(text, number):
    assert signals.number(text) == number


@pytest.mark.parametrize("text", ["0", "65", "-1", "", "SIGNONSENSE", "9x"])
def test_not_signals(text):
    with pytest.raises(InvalidArgument, match="invalid signal"):
        signals.number(text)


def test_detach_keys():
    assert detach.parse("ctrl-p,ctrl-q") == [16, 17]
    assert detach.parse("a,ctrl-@,ctrl-]") == [97, 0, 29]
    for bad in ("", "ctrl-", "ab", "ctrl-ä"):
        with pytest.raises(InvalidArgument, match="Invalid detach keys"):
            detach.parse(bad)


@pytest.mark.parametrize("name", ["", "a", "-a", "a/b", "a b", "a\0b", "a" * 256, "../x", "/a/b"])
def test_names_that_cannot_be(name):
    with pytest.raises(InvalidArgument, match="Invalid container name"):
        check_name(name)


def test_names_are_found():
    assert check_name("/web.1_a-B") == "web.1_a-B"
    assert len(set(FIRST)) == len(FIRST)
    assert len(set(SECOND)) == len(SECOND)
    taken = {f"{first}_{second}" for first in FIRST for second in SECOND}
    assert random_name(taken) not in taken


@pytest.mark.parametrize(
    ("options", "expected"),
    [([], (None, False)), (["seccomp=unconfined"], ("unconfined", False)), (["seccomp:{}"], ("{}", False)), (["no-new-privileges"], (None, True)),
     (["no-new-privileges:true", "label=disable"], (None, True)), (["no-new-privileges=false"], (None, False)), (["seccomp=builtin"], (None, False))],
)  # fmt: skip
def test_security_options(options, expected):
    assert security(host(SecurityOpt=options)) == expected


def test_ports():
    assert parse_port("80") == ("tcp", 80)
    assert parse_port("53/udp") == ("udp", 53)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("", 0),
        ("0", 0),
        ("1700000000", 1_700_000_000_000_000_000),
        ("1700000000.5", 1_700_000_000_500_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000_000_000),
    ],
)
def test_times(text, ns):
    assert parse_time(text) == ns


def test_bad_time():
    with pytest.raises(InvalidArgument, match="invalid time"):
        parse_time("yesterday")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State("created"), "Created"),
        (State("exited", exit_code=3, finished_ns=1), "Exited (3)"),
        (State("restarting", exit_code=1, finished_ns=1), "Restarting (1)"),
    ],
)
def test_status_words(state, words):
    assert status_text(state).startswith(words)


@pytest.mark.parametrize(
    ("version", "body", "field", "kept"),
    [
        (55, {"HostConfig": {"Umask": 18}}, "HostConfig.Umask", None),
        (42, {"HostConfig": {"Annotations": {"a": "b"}}}, "HostConfig.Annotations", None),
        (41, {"HostConfig": {"ConsoleSize": [1, 2]}}, "HostConfig.ConsoleSize", [0, 0]),
        (40, {"HostConfig": {"CgroupnsMode": "private"}}, "HostConfig.CgroupnsMode", None),
        (42, {"HostConfig": {"KernelMemory": 1 << 30}}, "HostConfig.KernelMemory", 0),
        (52, {"HostConfig": {"KernelMemoryTCP": 1 << 30}}, "HostConfig.KernelMemoryTCP", 0),
        (43, {"Healthcheck": {"StartInterval": 10**9}}, "Healthcheck.StartInterval", None),
    ],
)
def test_a_field_of_another_version_is_ignored_with_a_warning(version, body, field, kept):
    asked = create_request(body, "", None, version)
    assert asked.warnings == [f"{field} is not part of API v1.{version} and was ignored"]
    value = {**asked.config, "HostConfig": asked.host}
    for name in field.split("."):
        value = (value or {}).get(name)
    if field != "HostConfig.CgroupnsMode":  # which has a default of its own there
        assert value == kept
    newest_or_before = 56 if field not in ("HostConfig.KernelMemory", "HostConfig.KernelMemoryTCP") else version - 1
    assert create_request(body, "", None, newest_or_before).warnings == []


def test_defaults_that_older_clients_expect():
    assert create_request({}, "", None, 39).host["IpcMode"] == "shareable"
    assert create_request({}, "", None, 40).host["IpcMode"] == ""
    assert create_request({"HostConfig": {"IpcMode": "none"}}, "", None, 39).host["IpcMode"] == "none"
    assert create_request({}, "", None, 43).read_only_recursive is False
    assert create_request({}, "", None, 44).read_only_recursive is True
    assert create_request({}, "", None, 41).host["CgroupnsMode"] == ""


@pytest.mark.parametrize(
    ("version", "body", "words"),
    [
        (43, {"HostConfig": {"Mounts": [{"Type": "bind", "BindOptions": {"ReadOnlyForceRecursive": True}}]}},
         "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer"),
        (44, {"HostConfig": {"Mounts": [{"Type": "volume", "VolumeOptions": {"Subpath": "x"}}]}}, "VolumeOptions.Subpath needs API v1.45 or newer"),
        (43, {"NetworkingConfig": {"EndpointsConfig": {"a": {}, "b": {}}}}, "multiple network endpoints: a, b"),
        (52, {"MacAddress": "02:42:ac:11:00:02"}, "container-wide MAC address no longer supported"),
        (44, {"MacAddress": "02:42:ac:11:00:02", "NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": "02:42:ac:11:00:03"}}}},
         "must match the endpoint-specific MAC address"),
        (43, {"MacAddress": "02:42:ac:11:00:02", "HostConfig": {"NetworkMode": "host"}}, "conflicting options: mac-address"),
    ],
)  # fmt: skip
def test_what_a_version_refuses(version, body, words):
    with pytest.raises(InvalidArgument, match=words):
        create_request(body, "", None, version)


def test_options_of_another_type_of_mount_were_once_ignored():
    body = {
        "HostConfig": {
            "Mounts": [
                {"Type": "bind", "Source": "/", "Target": "/x", "TmpfsOptions": {"Mode": 7}, "VolumeOptions": {}}
            ]
        }
    }
    assert "TmpfsOptions" not in create_request(body, "", None, 41).host["Mounts"][0]
    assert "TmpfsOptions" in create_request(body, "", None, 42).host["Mounts"][0]


def test_warnings_of_a_request():
    ports = {"HostConfig": {"PortBindings": {"80/tcp": [], "81/tcp": [{}]}}}
    assert "empty list of port-bindings: 80/tcp." in create_request(ports, "", None, 52).warnings[0]
    assert create_request(ports, "", None, 51).warnings == []
    driver = {"HostConfig": {"VolumeDriver": "local", "Mounts": [{"Type": "volume", "Target": "/x"}]}}
    assert "volume-driver configuration is ignored" in create_request(driver, "", None, 48).warnings[0]
    mac = {"MacAddress": "02:42:ac:11:00:02"}
    assert "MacAddress field is now deprecated" in create_request(mac, "", None, 51).warnings[0]
    assert create_request(mac, "", None, 43).warnings == []


def test_what_the_host_does_not_offer_is_discarded_with_a_word():
    nothing = Offered(True, frozenset(field for field, *_ in _LIMITS), False, "0-1", "0")
    asked = host(CpuShares=2, CpusetCpus="0", BlkioWeight=20, MemorySwappiness=0, OomKillDisable=True, CpuPercent=7, KernelMemory=9,
                 BlkioDeviceReadBps=[{"Path": "/dev/x", "Rate": 1}], BlkioWeightDevice=[{"Path": "/dev/x", "Weight": 10}])  # fmt: skip
    warnings = []
    discard(asked, warnings, nothing)
    assert len(warnings) == 9
    assert all(word.endswith("discarded.") for word in warnings)
    assert [asked[name] for name in ("CpuShares", "CpusetCpus", "BlkioWeight", "MemorySwappiness", "OomKillDisable", "CpuPercent", "KernelMemory")] == [
        0, "", 0, None, None, 0, 0]  # fmt: skip
    assert asked["BlkioDeviceReadBps"] == asked["BlkioWeightDevice"] == []
    everything = Offered(False, frozenset(), True, "0-1", "0")
    asked = host(
        CpuShares=2, CpusetCpus="0-1", BlkioWeight=20, OomKillDisable=True, CpuRealtimeRuntime=5, CpuRealtimePeriod=10
    )
    warnings = []
    discard(asked, warnings, everything)
    assert warnings == []
    assert asked["CpuShares"] == 2
