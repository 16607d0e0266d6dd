"""What the random walk asks for, by the names of parameters and fields: values that make sense, and odd ones."""

import json

from tests.conftest import oci_archive, tar_of

RUNS = [["sleep", "1000"], ["sh", "-c", "echo out; echo err >&2; exec sleep 1000"], ["true"], ["sh", "-c", "exit 7"]]
COMMANDS = [*RUNS, ["false"], ["cat"], ["sleep", "0.2"], ["sh", "-c", "for i in $(seq 200); do echo line $i; done"]]
NAMES = [f"walk-{letter}" for letter in "abcdefgh"]
LABELS = [{}, {"a": "b"}, {"a": "", "ü": "x"}]
FILTERS = [
    {}, {"label": ["a"]}, {"label": {"a=b": True}}, {"status": ["running"]}, {"name": ["walk"]}, {"id": ["0"]}, {"until": ["1s"]},
    {"dangling": ["true"]}, {"reference": ["busy*"]}, {"type": ["container"]}, {"driver": ["bridge"]}, {"health": ["none"]},
    {"ancestor": ["busybox"]}, {"exited": ["0"]}, {"publish": ["80"]}, {"expose": ["80/tcp"]}, {"volume": ["walk-a"]},
    {"network": ["bridge"]}, {"before": ["busybox"]}, {"label!": ["a=b"]}, {"nope": ["x"]}, {"scope": ["local"]}, {"event": ["die"]},
]  # fmt: skip

QUERY = {
    "all": ["1", "1", "0", "true"],
    "author": ["", "me"],
    "changes": ["ENV a=b", "CMD true", "EXPOSE 80", 'HEALTHCHECK CMD ["true"]', "LABEL a=b"],
    "comment": ["", "said"],
    "condition": ["not-running", "next-exit", "removed"],
    "copyUIDGID": ["1", "0"],
    "detachKeys": ["", "ctrl-a,d"],
    "digests": ["1"],
    "filters": [json.dumps(one) for one in FILTERS],
    "follow": ["0"],
    "force": ["1", "0"],
    "fromSrc": ["-"],
    "h": ["10", "0"],
    "limit": ["0", "1", "3", "-1"],
    "link": ["0"],
    "logs": ["1", "0"],
    "manifests": ["1", "0"],
    "message": ["", "said"],
    "name": NAMES,
    "names": ["busybox", "walk:1"],
    "noOverwriteDirNonDir": ["1", "0"],
    "noprune": ["1", "0"],
    "one-shot": ["1", "0"],
    "path": ["/", "/etc/passwd", "/tmp", "/data", "/proc", "etc"],
    "pause": ["1", "0"],
    "platform": [""],
    "ps_args": ["", "-ef", "-o pid,comm", "aux"],
    "quiet": ["1", "0"],
    "repo": ["walk", "walk/b"],
    "scope": ["local"],
    "shared-size": ["1"],
    "signal": ["SIGKILL", "TERM", "9", "USR1"],
    "since": ["0", "1"],
    "size": ["1", "0"],
    "stderr": ["1", "0"],
    "stdin": ["0"],
    "stdout": ["1"],
    "stream": ["0"],
    "t": ["0"],
    "tag": ["1", "2", ""],
    "tail": ["all", "1", "0"],
    "timestamps": ["1", "0"],
    "type": ["container", "image", "volume", "build-cache"],
    "until": ["1800000000"],
    "v": ["1", "0"],
    "verbose": ["1", "0"],
    "w": ["10", "0"],
}
ODD_QUERY = {
    "changes": ["NOPE x", "EXPOSE x"],
    "condition": ["nope"],
    "detachKeys": ["x,,"],
    "h": ["70000", "x"],
    "identity": ["1"],
    "link": ["1"],
    "name": ["", "bad name"],
    "names": ["nope"],
    "path": ["/nope", "/etc/passwd/x", ""],
    "platform": ["linux/amd64", '{"os":"linux","architecture":"amd64"}', "linux/arm64", "nope"],
    "platforms": ['{"os":"linux","architecture":"amd64"}'],
    "ps_args": ["-o nope"],
    "repo": ["Bad Name", ""],
    "scope": ["nope"],
    "signal": ["SIGNOPE", "0"],
    "since": ["1700000000.5", "x"],
    "stdout": ["0"],
    "t": ["1", "x"],
    "tag": ["bad tag"],
    "tail": ["x"],
    "type": ["nope"],
    "until": ["1"],
}

HOST = {
    "AutoRemove": [True, False],
    "Binds": [["/tmp:/data:ro"], ["walk-a:/data"], ["walk-b:/tmp"], None],
    "CapAdd": [["NET_ADMIN"], ["ALL"], None],
    "CapDrop": [["ALL"], ["CHOWN"]],
    "CgroupnsMode": ["host", "private", ""],
    "CpuShares": [0, 512],
    "CpusetCpus": ["0", ""],
    "Dns": [["127.0.0.1"]],
    "ExtraHosts": [["a:127.0.0.1"], ["a:host-gateway"]],
    "Init": [True, False, None],
    "IpcMode": ["", "private", "shareable", "host", "none"],
    "LogConfig": [{"Type": "json-file"}, {"Type": "local"}, {"Type": "none"}, {"Type": "json-file", "Config": {"max-size": "1k"}}],
    "Memory": [0, 64 << 20],
    "Mounts": [
        [{"Type": "tmpfs", "Target": "/scratch"}], [{"Type": "volume", "Source": "walk-c", "Target": "/mnt"}],
        [{"Type": "image", "Source": "busybox", "Target": "/img"}],
    ],
    "NanoCpus": [0, 500_000_000],
    "NetworkMode": ["bridge", "none", "default"],
    "OomScoreAdj": [0, 500],
    "PidsLimit": [0, 100, None, -1],
    "PortBindings": [{}, {"80/tcp": [{"HostPort": ""}]}, {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]}],
    "PublishAllPorts": [True, False],
    "ReadonlyRootfs": [True, False],
    "RestartPolicy": [{"Name": "no"}, {"Name": "on-failure", "MaximumRetryCount": 2}, {"Name": "unless-stopped"}],
    "SecurityOpt": [["no-new-privileges"], ["seccomp=unconfined"]],
    "ShmSize": [0, 1 << 20],
    "Tmpfs": [{"/run": ""}, {"/run": "size=1m"}],
    "Ulimits": [[{"Name": "nofile", "Soft": 100, "Hard": 100}]],
    "UTSMode": [""],
}  # fmt: skip
ODD_HOST = {
    "Binds": [["x"], ["/proc/no-such:/data"]],
    "BlkioWeight": [500, 5],
    "CapAdd": [["NOPE"]],
    "CpuShares": [-1],
    "CpusetCpus": ["99"],
    "Dns": [["x"]],
    "ExtraHosts": [["x"]],
    "LogConfig": [{"Type": "nope"}],
    "Memory": [100],
    "Mounts": [[{"Type": "bind", "Source": "/no/such", "Target": "/mnt"}]],
    "NanoCpus": [-5],
    "NetworkMode": ["walk-a", "walk-b", "container:walk-a", "container:walk-b", "nope", "host"],
    "OomKillDisable": [True],
    "OomScoreAdj": [5000],
    "PidMode": ["container:walk-b", "nope"],
    "PortBindings": [{"x": None}, {"80/tcp": [{"HostPort": "x"}]}],
    "RestartPolicy": [{"Name": "nope"}, {"Name": "no", "MaximumRetryCount": 2}],
    "SecurityOpt": [["nope"]],
    "ShmSize": [-1],
    "Sysctls": [{"net.ipv4.ip_forward": "0"}, {"kernel.nope": "1"}],
    "Tmpfs": [{"run": ""}],
    "Ulimits": [[{"Name": "nope"}]],
    "UTSMode": ["host"],
    "VolumesFrom": [["walk-a"], ["walk-b:ro"], ["nope"]],
}
CONFIG = {
    "AttachStderr": [True, False],
    "AttachStdin": [False],
    "AttachStdout": [True, False],
    "Cmd": COMMANDS,
    "Domainname": ["", "example.org"],
    "Entrypoint": [None, [], ["sh", "-c"]],
    "Env": [["A=b"], ["A"], [], None],
    "ExposedPorts": [{"80/tcp": {}}, {"53/udp": {}}],
    "Healthcheck": [{"Test": ["NONE"]}, {"Test": ["CMD", "true"], "Interval": 1_000_000_000}, {"Test": ["CMD-SHELL", "exit 1"], "Interval": 1_000_000_000, "Retries": 1}, {}],
    "Hostname": ["", "walker"],
    "Image": ["busybox"],
    "Labels": LABELS,
    "OpenStdin": [True, False],
    "StopSignal": ["SIGKILL", ""],
    "StopTimeout": [0, 1, None],
    "Tty": [True, False],
    "User": ["", "app", "1000:1000"],
    "Volumes": [{"/anonymous": {}}, None],
    "WorkingDir": ["", "/tmp", "/new/one"],
}  # fmt: skip
ODD_CONFIG = {
    "Cmd": [["no-such-program"], [], None],
    "Entrypoint": [["no-such"]],
    "ExposedPorts": [{"x": {}}],
    "Image": ["walk:1", "walk:loaded", "nope", ""],
    "Labels": [None],
    "StopSignal": ["TERM", "NOPE"],
    "User": ["nobody-here"],
    "Volumes": [{"x": {}}],
    "WorkingDir": ["relative"],
}
ENDPOINT = {
    "Aliases": [["db"], None],
    "DriverOpts": [None],
    "GwPriority": [0, 5],
    "IPAMConfig": [None],
    "MacAddress": ["", "02:42:00:00:00:07"],
}
ODD_ENDPOINT = {
    "DriverOpts": [{"a": "b"}],
    "IPAMConfig": [{"IPv4Address": "10.123.0.77"}, {"IPv4Address": "x"}],
    "Links": [["walk-a:alias"]],
    "MacAddress": ["x"],
}
NETWORK = {
    "Attachable": [True, False],
    "Driver": ["bridge", ""],
    "EnableIPv4": [True],
    "EnableIPv6": [False, True],
    "IPAM": [None, {}, {"Driver": "default"}],
    "Internal": [True, False],
    "Labels": LABELS,
    "Options": [{}, {"com.docker.network.driver.mtu": "1400"}, {"com.docker.network.bridge.enable_icc": "false"}],
}
ODD_NETWORK = {
    "Driver": ["ipvlan", "macvlan", "nope"],
    "EnableIPv4": [False],
    "IPAM": [{"Config": [{"Subnet": "10.123.0.0/24"}]}, {"Config": [{"Subnet": "x"}]}],
    "Labels": [None],
    "Name": ["bridge", ""],
}
VOLUME = {"Driver": ["local", ""], "DriverOpts": [{}], "Labels": LABELS, "Name": NAMES}
ODD_VOLUME = {
    "Driver": ["nope"],
    "DriverOpts": [{"type": "tmpfs", "device": "tmpfs"}, {"nope": "x"}],
    "Name": ["", "bad name"],
}
EXEC = {
    "AttachStderr": [True, False],
    "AttachStdout": [True, False],
    "Cmd": [["true"], ["sh", "-c", "echo x"], ["sleep", "0.1"], ["sh", "-c", "exit 3"]],
    "Env": [["A=b"], None],
    "Privileged": [False, True],
    "Tty": [True, False],
    "User": ["", "app"],
    "WorkingDir": ["", "/tmp"],
}
ODD_EXEC = {"Cmd": [["no-such"], []], "DetachKeys": ["ctrl-a", "x,,"], "User": ["nobody-here"], "WorkingDir": ["/nope"]}
UPDATE = {name: HOST[name] for name in ("CpuShares", "CpusetCpus", "Memory", "NanoCpus", "PidsLimit", "RestartPolicy")}

# The bodies of requests that are no JSON.
SMALL_IMAGE = oci_archive([tar_of([("file", b"x")])], {"Cmd": ["true"]}, "docker.io/library/walk:loaded")
BINARY = {
    "/containers/{id}/archive": [tar_of([("a", b"1"), ("b/c", b"2")]), tar_of([]), b"garbage" * 200, b""],
    "/images/load": [SMALL_IMAGE, SMALL_IMAGE, b"garbage" * 200, b""],
    "/images/create": [tar_of([("a", b"1")]), b"garbage" * 200],
}


def some(fields, odd, chance, most=4):
    """An object of a few of the fields; one in five has something odd."""
    chosen = chance.sample(list(fields), chance.randint(0, min(most, len(fields))))
    found = {name: chance.choice(fields[name]) for name in chosen}
    if odd and chance.random() < 0.2:
        name = chance.choice(list(odd))
        found[name] = chance.choice(odd[name])
    return found
