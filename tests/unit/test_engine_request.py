"""What a request for a container may hold: everything else is refused, by the field's name."""

import pytest

from knarr.api.wire.containers import create_request, parse_time, status_text
from knarr.engine.containers import detach, merge, signals
from knarr.engine.containers.create import check_name
from knarr.engine.containers.names import FIRST, SECOND, random_name
from knarr.engine.containers.request import check, log_limits, parse_port, security
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
        ({"PortBindings": {"80/tcp": [{"HostPort": "http"}]}}, "invalid host port"),
        ({"ExtraHosts": ["nonsense"]}, "bad format for add-host"),
        ({"Dns": ["nonsense"]}, "not a valid DNS server"),
        ({"DeviceCgroupRules": ["nonsense"]}, "invalid device cgroup rule"),
        ({"Runtime": "nonsense"}, "unknown or invalid runtime name: nonsense"),
        ({"CapAdd": ["nonsense"]}, "unknown capability"),
        ({"LogConfig": {"Type": "nonsense"}}, "no log driver named 'nonsense'"),
        ({"LogConfig": {"Type": "json-file", "Config": {"max-size": "x"}}}, "max-size"),
        ({"Umask": 0o1000}, "Umask"),
        ({"Knarr": {"Nonsense": 1}}, "Nonsense"),
        ({"Knarr": {"HostOverlay": True}}, "leave Image empty"),
    ],
)
def test_what_makes_no_sense_is_refused(values, words):
    with pytest.raises(InvalidArgument, match=words):
        check(config(), host(**values))


@pytest.mark.parametrize(
    "values",
    [
        {"Links": ["a:b"]}, {"StorageOpt": {"size": "1G"}}, {"UsernsMode": "private"}, {"CgroupParent": "/x"}, {"VolumeDriver": "nfs"},
        {"DeviceRequests": [{"Driver": "nvidia"}]}, {"BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1}]}, {"KernelMemory": 1 << 30},
        {"IOMaximumIOps": 1}, {"IpcMode": "container:x"}, {"PortBindings": {"80/sctp": []}}, {"PortBindings": {"80/tcp": [{"HostIp": "::1"}]}},
        {"PortBindings": {"80/tcp": [{"HostPort": "8000-8010"}]}}, {"SecurityOpt": ["apparmor=custom"]}, {"LogConfig": {"Config": {"tag": "x"}}},
    ],
    ids=lambda values: next(iter(values)),
)  # fmt: skip
def test_what_is_not_done_is_refused_by_name(values):
    with pytest.raises(Unsupported, match="(?i)" + "|".join([*values, "port", "apparmor", "tag"])):
        check(config(), host(**values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"WorkingDir": "relative"}, "needs to be an absolute path"),
        ({"StopSignal": "NONSENSE"}, "invalid signal: NONSENSE"),
        ({"Env": ["=x"]}, "invalid environment variable"),
        ({"Hostname": "a/b"}, "invalid hostname"),
        ({"Hostname": "x" * 64}, "invalid hostname"),
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


@pytest.mark.parametrize("body", [{"Unknown": "x"}, {"HostConfig": {"Unknown": 1}}])
def test_an_unknown_field_is_refused_by_name(body):
    with pytest.raises(InvalidArgument, match="Unknown"):
        create_request(body, "", None)


@pytest.mark.parametrize(
    "body", [{"Cmd": 7}, {"Env": "A=1"}, {"HostConfig": {"Memory": "7"}}, {"HostConfig": {"Privileged": 1}}]
)
def test_a_wrong_type_is_refused(body):
    with pytest.raises(ValueError):
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


def test_log_limits():
    assert log_limits(host(), 100, 3) == (100, 3)
    assert log_limits(
        host(LogConfig={"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}), 100, 3
    ) == (10 << 20, 2)
    assert log_limits(host(LogConfig={"Type": "none"}), 100, 3) is None


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
