"""What each field of a request for a container does: the table behind test_create_fields.py.

A case names the fields that it proves, gives a body that holds them, and says where their effect is seen: in the words of
a command in the container, in a file of its control group, in what inspect shows, in a warning, or in a refusal.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path("/var/tmp")
UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers").exists()


def a_disk() -> str:
    """A block device that takes limits."""
    disks = [name for name in sorted(os.listdir("/sys/block")) if not name.startswith(("loop", "ram", "zram"))]
    return f"/dev/{disks[0]}"


DISK = a_disk()
NUMBERS = f"{os.major(os.stat(DISK).st_rdev)}:{os.minor(os.stat(DISK).st_rdev)}"
MAC = "02:42:0a:58:77:07"


@dataclass
class Case:
    """One container, and what proves each of its fields."""

    fields: str  # paths, separated by spaces; H. stands for HostConfig, E. for an endpoint of NetworkingConfig
    body: dict[str, Any]
    command: str = ""  # a shell's; none: nothing is run inside
    output: str = ""  # a regular expression that its output matches as a whole
    group: tuple[str, str, str, str] | None = None  # version 1: controller and file; version 2: file; a part of both
    shown: dict[str, Any] = field(default_factory=dict)  # path in inspect → value
    refused: tuple[int, str] | None = None
    warned: str = ""
    version: str = "1.56"

    @property
    def paths(self) -> list[str]:
        short = {"H": "HostConfig", "E": "NetworkingConfig.EndpointsConfig.*"}
        return [
            ".".join([short.get(one.split(".")[0], one.split(".")[0]), *one.split(".")[1:]])
            for one in self.fields.split()
        ]


def host(**values: Any) -> dict[str, Any]:
    return {"HostConfig": values}


def mount(**values: Any) -> dict[str, Any]:
    return host(Mounts=[{"Target": "/mnt/it", **values}])


def rate(name: str) -> dict[str, Any]:
    return host(**{name: [{"Path": DISK, "Rate": 1048576}]})


def endpoint(name: str = "bridge", mode: str = "bridge", **values: Any) -> dict[str, Any]:
    return {"HostConfig": {"NetworkMode": mode}, "NetworkingConfig": {"EndpointsConfig": {name: values}}}


# What inspect says of a running endpoint: clients send it back, and it asks for nothing.
OPERATIONAL = {
    "NetworkID": "a" * 64, "EndpointID": "b" * 64, "Gateway": "10.9.9.1", "IPAddress": "10.9.9.9", "IPPrefixLen": 24, "IPv6Gateway": "",
    "GlobalIPv6Address": "fd00::9", "GlobalIPv6PrefixLen": 64, "DNSNames": ["x"],
}  # fmt: skip
OPTIONS_ECHO = "grep ' /mnt/it ' /proc/mounts | cut -d' ' -f4"

CASES = [
    # --- Config
    Case("Image", {}, "echo here", "here"),
    Case("Cmd", {"Cmd": ["echo", "by", "Cmd"]}, output="by Cmd"),
    Case("Entrypoint", {"Entrypoint": ["echo", "by"], "Cmd": ["both"]}, output="by both"),
    Case("Env", {"Env": ["A=1", "B=x y"]}, 'echo "$A $B"', "1 x y"),
    Case("WorkingDir", {"WorkingDir": "/var/new"}, "pwd", "/var/new"),
    Case("User", {"User": "app:extra"}, "id -u; id -g", "1000\n2000"),
    Case("Hostname Domainname", {"Hostname": "box", "Domainname": "example.org"}, "hostname; cat /proc/sys/kernel/domainname", "box\nexample.org"),
    Case("Tty", {"Tty": True}, "tty", "/dev/pts/0"),
    Case("OpenStdin", {"OpenStdin": True}, "test -p /dev/stdin && echo a pipe", "a pipe"),
    Case("StdinOnce AttachStdin AttachStdout AttachStderr ArgsEscaped",
         {"StdinOnce": True, "AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "ArgsEscaped": True},
         shown={"Config.StdinOnce": True, "Config.AttachStdin": True, "Config.AttachStdout": True, "Config.AttachStderr": True, "Config.ArgsEscaped": True}),
    Case("ExposedPorts", {"ExposedPorts": {"80/tcp": {}}}, shown={"Config.ExposedPorts": {"80/tcp": {}}}),
    Case("Labels OnBuild Shell StopSignal StopTimeout",
         {"Labels": {"a": "b"}, "OnBuild": ["RUN x"], "Shell": ["/bin/ash", "-c"], "StopSignal": "SIGUSR1", "StopTimeout": 3},
         shown={"Config.Labels": {"a": "b"}, "Config.OnBuild": ["RUN x"], "Config.Shell": ["/bin/ash", "-c"], "Config.StopSignal": "SIGUSR1",
                "Config.StopTimeout": 3}),
    Case("Volumes", {"Volumes": {"/data": {}}}, "grep -c ' /data ' /proc/mounts", "1"),
    Case("MacAddress", {"MacAddress": MAC, **host(NetworkMode="bridge")}, "cat /sys/class/net/eth0/address", MAC, version="1.43"),
    Case("MacAddress", {"MacAddress": MAC}, refused=(400, "container-wide MAC address no longer supported"), version="1.52"),
    Case("NetworkDisabled", {"NetworkDisabled": True, **host(NetworkMode="default")}, "ls /sys/class/net", "lo"),
    Case("Healthcheck.Test Healthcheck.Interval Healthcheck.Timeout Healthcheck.Retries Healthcheck.StartPeriod Healthcheck.StartInterval",
         {"Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9, "Timeout": 10**9, "Retries": 1, "StartPeriod": 10**9, "StartInterval": 10**9}},
         shown={"Config.Healthcheck": {"Test": ["CMD", "true"], "Interval": 10**9, "Timeout": 10**9, "Retries": 1, "StartPeriod": 10**9, "StartInterval": 10**9}}),
    # --- HostConfig: resources
    Case("H.Memory H.MemorySwap", host(Memory=64 << 20, MemorySwap=96 << 20), group=("memory", "memory.limit_in_bytes", "memory.max", f"{64 << 20}")),
    Case("H.MemoryReservation", host(MemoryReservation=32 << 20), group=("memory", "memory.soft_limit_in_bytes", "memory.low", f"{32 << 20}")),
    Case("H.MemorySwappiness", host(MemorySwappiness=7), warned="swappiness") if UNIFIED else
    Case("H.MemorySwappiness", host(MemorySwappiness=7), group=("memory", "memory.swappiness", "", "7")),
    Case("H.OomKillDisable", host(OomKillDisable=True), warned="OomKillDisable") if UNIFIED else
    Case("H.OomKillDisable", host(OomKillDisable=True), group=("memory", "memory.oom_control", "", "oom_kill_disable 1"), warned="OOM killer is disabled"),
    Case("H.NanoCpus", host(NanoCpus=500_000_000), group=("cpu", "cpu.cfs_quota_us", "cpu.max", "50000")),
    Case("H.CpuQuota H.CpuPeriod", host(CpuQuota=20000, CpuPeriod=50000), group=("cpu", "cpu.cfs_period_us", "cpu.max", "50000")),
    Case("H.CpuQuota", host(CpuQuota=20000, CpuPeriod=50000), group=("cpu", "cpu.cfs_quota_us", "cpu.max", "20000")),
    Case("H.CpuShares", host(CpuShares=1024), group=("cpu", "cpu.shares", "cpu.weight", "10")),
    Case("H.CpusetCpus H.CpusetMems", host(CpusetCpus="0", CpusetMems="0"), "grep ^Cpus_allowed_list /proc/self/status", r"Cpus_allowed_list:\s0"),
    Case("H.CpuRealtimePeriod H.CpuRealtimeRuntime", host(CpuRealtimePeriod=1000, CpuRealtimeRuntime=2000), refused=(400, "real-time")),
    Case("H.PidsLimit", host(PidsLimit=77), group=("pids", "pids.max", "pids.max", "77")),
    Case("H.BlkioWeight", host(BlkioWeight=321), group=("blkio", "blkio.bfq.weight", "io.weight", "321" if not UNIFIED else "default")),
    Case("H.BlkioWeightDevice.Path H.BlkioWeightDevice.Weight", host(BlkioWeightDevice=[{"Path": "sda", "Weight": 200}]), refused=(400, "BlkioWeightDevice")),
    Case("H.BlkioWeightDevice.Path H.BlkioWeightDevice.Weight", host(BlkioWeightDevice=[{"Path": DISK, "Weight": 200}]), "echo goes on", "goes on"),
    Case("H.BlkioDeviceReadBps.Path H.BlkioDeviceReadBps.Rate", rate("BlkioDeviceReadBps"),
         group=("blkio", "blkio.throttle.read_bps_device", "io.max", f"{NUMBERS} 1048576" if not UNIFIED else f"{NUMBERS} rbps=1048576")),
    Case("H.BlkioDeviceWriteBps.Path H.BlkioDeviceWriteBps.Rate", rate("BlkioDeviceWriteBps"),
         group=("blkio", "blkio.throttle.write_bps_device", "io.max", f"{NUMBERS} 1048576" if not UNIFIED else "wbps=1048576")),
    Case("H.BlkioDeviceReadIOps.Path H.BlkioDeviceReadIOps.Rate", rate("BlkioDeviceReadIOps"),
         group=("blkio", "blkio.throttle.read_iops_device", "io.max", f"{NUMBERS} 1048576" if not UNIFIED else "riops=1048576")),
    Case("H.BlkioDeviceWriteIOps.Path H.BlkioDeviceWriteIOps.Rate", rate("BlkioDeviceWriteIOps"),
         group=("blkio", "blkio.throttle.write_iops_device", "io.max", f"{NUMBERS} 1048576" if not UNIFIED else "wiops=1048576")),
    Case("H.CgroupParent", host(CgroupParent="knarr-fields-test.slice/inner", CgroupnsMode="host"), "cat /proc/self/cgroup | grep -m1 :memory: || cat /proc/self/cgroup",
         r".*:/knarr-fields-test\.slice/inner/[0-9a-f]{64}.*"),
    Case("H.CpuCount", host(CpuCount=2), warned="CPU count"),
    Case("H.CpuPercent", host(CpuPercent=2), warned="CPU percent"),
    Case("H.IOMaximumIOps", host(IOMaximumIOps=2), refused=(400, "maximum IOPs")),
    Case("H.IOMaximumBandwidth", host(IOMaximumBandwidth=2), refused=(400, "maximum bandwidth")),
    Case("H.KernelMemory", host(KernelMemory=1 << 30), warned="KernelMemory", version="1.41"),
    Case("H.KernelMemory", host(KernelMemory=1 << 30), warned="KernelMemory is not part of API v1.42", version="1.42"),
    Case("H.KernelMemoryTCP", host(KernelMemoryTCP=1 << 30), warned="KernelMemoryTCP", version="1.51"),
    Case("H.KernelMemoryTCP", host(KernelMemoryTCP=1 << 30), warned="KernelMemoryTCP is not part of API v1.52", version="1.52"),
    Case("H.Ulimits.Name H.Ulimits.Soft H.Ulimits.Hard", host(Ulimits=[{"Name": "nofile", "Soft": 33, "Hard": 44}]), "ulimit -Sn; ulimit -Hn", "33\n44"),
    Case("H.OomScoreAdj", host(OomScoreAdj=123), "cat /proc/self/oom_score_adj", "123"),
    Case("H.ShmSize", host(ShmSize=3 << 20), "grep ' /dev/shm ' /proc/mounts", ".*size=3072k.*"),
    Case("H.Devices.PathOnHost H.Devices.PathInContainer H.Devices.CgroupPermissions",
         host(Devices=[{"PathOnHost": "/dev/zero", "PathInContainer": "/dev/nil", "CgroupPermissions": "r"}]), "head -c3 /dev/nil | wc -c", "3"),
    Case("H.DeviceCgroupRules", host(DeviceCgroupRules=["c 10:237 r"], CapAdd=["MKNOD"]), "mknod /tmp/d c 10 237 && : < /tmp/d && echo open", "open"),
    Case("H.DeviceRequests.Driver H.DeviceRequests.Count H.DeviceRequests.DeviceIDs H.DeviceRequests.Capabilities H.DeviceRequests.Options",
         host(DeviceRequests=[{"Driver": "nvidia", "Count": 1, "DeviceIDs": ["0"], "Capabilities": [["gpu"]], "Options": {"a": "b"}}]),
         refused=(400, 'could not select device driver "nvidia" with capabilities: [[gpu]]')),
    Case("H.DeviceRequests.Driver H.DeviceRequests.DeviceIDs", host(DeviceRequests=[{"Driver": "cdi", "DeviceIDs": ["v.com/d=1"]}]), refused=(501, "CDI")),
    # --- HostConfig: namespaces and rights
    Case("H.NetworkMode", host(NetworkMode="host"), "readlink /proc/self/ns/net", f"{os.readlink('/proc/self/ns/net')}".replace("[", r"\[").replace("]", r"\]")),
    Case("H.PidMode", host(PidMode="host"), "readlink /proc/self/ns/pid", f"{os.readlink('/proc/self/ns/pid')}".replace("[", r"\[").replace("]", r"\]")),
    Case("H.UTSMode", host(UTSMode="host"), "readlink /proc/self/ns/uts", f"{os.readlink('/proc/self/ns/uts')}".replace("[", r"\[").replace("]", r"\]")),
    Case("H.IpcMode", host(IpcMode="host"), "readlink /proc/self/ns/ipc", f"{os.readlink('/proc/self/ns/ipc')}".replace("[", r"\[").replace("]", r"\]")),
    Case("H.CgroupnsMode", host(CgroupnsMode="host"), "readlink /proc/self/ns/cgroup", f"{os.readlink('/proc/self/ns/cgroup')}".replace("[", r"\[").replace("]", r"\]")),
    Case("H.UsernsMode", host(UsernsMode="host"), "cat /proc/self/uid_map", r"\s+0\s+0\s+4294967295"),
    Case("H.UsernsMode", host(UsernsMode="private"), refused=(400, "invalid userns mode")),
    Case("H.Cgroup", host(Cgroup="container:x"), refused=(501, "HostConfig.Cgroup")),
    Case("H.Isolation", host(Isolation="hyperv"), refused=(400, "invalid isolation")),
    Case("H.Capabilities", host(Capabilities=["CAP_CHOWN"]), refused=(400, "HostConfig.Capabilities"), version="1.40"),
    Case("H.CapAdd H.CapDrop", host(CapAdd=["SYS_TIME"], CapDrop=["ALL"]), "grep CapEff /proc/self/status", r"CapEff:\s0000000002000000"),
    Case("H.Privileged", host(Privileged=True), "grep Seccomp: /proc/self/status", r"Seccomp:\s0"),
    Case("H.SecurityOpt", host(SecurityOpt=["no-new-privileges"]), "grep NoNewPrivs /proc/self/status", r"NoNewPrivs:\s1"),
    Case("H.SecurityOpt", host(SecurityOpt=["apparmor=mine"]), refused=(501, "SecurityOpt")),
    Case("H.GroupAdd", host(GroupAdd=["extra", "77"]), "id -G", "0.* 2000 77|0.* 77 2000"),
    Case("H.Umask", host(Umask=0o27), "umask", "0?027"),
    Case("H.Init", host(Init=True), "cat /proc/1/comm; test $$ != 1 && echo not the first", "(?s).*not the first"),
    Case("H.MaskedPaths", host(MaskedPaths=["/etc/group"]), "wc -c < /etc/group", "0"),
    Case("H.ReadonlyPaths", host(ReadonlyPaths=["/etc"]), "touch /etc/x 2>&1 || echo refused", "(?s).*ead-only.*refused"),
    Case("H.ReadonlyRootfs", host(ReadonlyRootfs=True), "touch /x 2>&1 || echo refused", "(?s).*ead-only.*refused"),
    Case("H.Sysctls", host(Sysctls={"net.ipv4.ip_default_ttl": "77", "kernel.msgmax": "9000"}), "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax", "77\n9000"),
    Case("H.Annotations", host(Annotations={"a": "b"}), shown={"HostConfig.Annotations": {"a": "b"}}),
    Case("H.Runtime", host(Runtime="runc"), "echo runs", "runs"),
    Case("H.Runtime", host(Runtime="kata"), refused=(400, "unknown or invalid runtime name: kata")),
    # --- HostConfig: files
    Case("H.Binds", host(Binds=[f"{HERE}:/mnt/it:ro"]), OPTIONS_ECHO, "ro,.*"),
    Case("H.Tmpfs", host(Tmpfs={"/mnt/it": "size=2m,mode=700"}), OPTIONS_ECHO, "rw,nosuid,nodev,noexec.*size=2048k,mode=700.*"),
    Case("H.VolumesFrom", host(VolumesFrom=["fields-donor"]), "cat /donated/note", "from the donor"),
    Case("H.VolumeDriver", host(VolumeDriver="local", Binds=["fields-local:/mnt/it"]), "grep -c ' /mnt/it ' /proc/mounts", "1"),
    Case("H.VolumeDriver", host(VolumeDriver="nfs", Binds=["fields-none:/mnt/it"]), refused=(400, 'plugin "nfs" not found')),
    Case("H.StorageOpt", host(StorageOpt={"size": "1G"}), refused=(400, "pquota")),
    Case("H.Mounts.Type H.Mounts.Source H.Mounts.Target H.Mounts.ReadOnly", mount(Type="bind", Source=str(HERE), ReadOnly=True), OPTIONS_ECHO, "ro,.*"),
    Case("H.Mounts.Consistency", mount(Type="bind", Source=str(HERE), Consistency="cached"), OPTIONS_ECHO, "rw,.*"),
    Case("H.Mounts.Consistency", mount(Type="bind", Source=str(HERE), Consistency="odd"), refused=(400, "invalid consistency")),
    Case("H.Mounts.BindOptions.NonRecursive", mount(Type="bind", Source="/sys", BindOptions={"NonRecursive": True}), "ls /mnt/it/fs/cgroup | wc -l", "0"),
    Case("H.Mounts.BindOptions.Propagation", mount(Type="bind", Source="/", BindOptions={"Propagation": "rslave"}),
         "grep ' /mnt/it ' /proc/self/mountinfo | grep -c master: ; true", "[01]", shown={"Mounts.0.Propagation": "rslave"}),
    Case("H.Mounts.BindOptions.CreateMountpoint", mount(Type="bind", Source="/var/tmp/knarr-fields-made", BindOptions={"CreateMountpoint": True}),
         "test -d /mnt/it && echo made", "made"),
    Case("H.Mounts.BindOptions.ReadOnlyNonRecursive", mount(Type="bind", Source="/sys", ReadOnly=True, BindOptions={"ReadOnlyNonRecursive": True}),
         "grep -E ' /mnt/it/fs/cgroup(/unified)? ' /proc/mounts | head -1 | cut -d' ' -f4", "rw,.*"),
    Case("H.Mounts.BindOptions.ReadOnlyForceRecursive", mount(Type="bind", Source="/sys", ReadOnly=True, BindOptions={"ReadOnlyForceRecursive": True, "Propagation": "rprivate"}),
         "grep -E ' /mnt/it/fs/cgroup(/unified)? ' /proc/mounts | head -1 | cut -d' ' -f4", "ro,.*"),
    Case("H.Mounts.VolumeOptions.NoCopy", mount(Type="volume", Target="/etc", VolumeOptions={"NoCopy": True}), "ls /etc/passwd 2>&1", "(?s).*No such file.*"),
    Case("H.Mounts.VolumeOptions.Labels", mount(Type="volume", Source="fields-labelled", VolumeOptions={"Labels": {"a": "b"}}), shown={"Mounts.0.Name": "fields-labelled"}),
    Case("H.Mounts.VolumeOptions.Subpath", mount(Type="volume", Source="fields-donated", VolumeOptions={"Subpath": "deep/er"}), "ls /mnt/it", "inner"),
    Case("H.Mounts.VolumeOptions.Subpath", mount(Type="volume", Source="fields-donated", VolumeOptions={"Subpath": "../x"}), refused=(400, "subpath must be a relative path")),
    Case("H.Mounts.VolumeOptions.DriverConfig.Name H.Mounts.VolumeOptions.DriverConfig.Options",
         mount(Type="volume", VolumeOptions={"DriverConfig": {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs", "o": "size=3m,noexec"}}}), OPTIONS_ECHO, "rw,noexec,.*size=3072k.*"),
    Case("H.Mounts.VolumeOptions.DriverConfig.Options",
         mount(Type="volume", VolumeOptions={"DriverConfig": {"Options": {"type": "nfs"}}}), refused=(400, 'missing required option: "device"')),
    Case("H.Mounts.VolumeOptions.DriverConfig.Options",
         mount(Type="volume", VolumeOptions={"DriverConfig": {"Options": {"size": "1g", "type": "tmpfs", "device": "tmpfs"}}}), refused=(400, 'option "size" is for volumes without')),
    Case("H.Mounts.Type", mount(Type="image", Source="busybox"), refused=(400, 'Mount type "Image" needs API v1.48 or newer'), version="1.47"),
    Case("H.Mounts.VolumeOptions.DriverConfig.Name", mount(Type="volume", VolumeOptions={"DriverConfig": {"Name": "local"}}), OPTIONS_ECHO, "rw,.*"),
    Case("H.Mounts.VolumeOptions.DriverConfig.Name", mount(Type="volume", VolumeOptions={"DriverConfig": {"Name": "nfs"}}), refused=(400, 'plugin "nfs" not found')),
    Case("H.Mounts.TmpfsOptions.SizeBytes H.Mounts.TmpfsOptions.Mode H.Mounts.TmpfsOptions.Options",
         mount(Type="tmpfs", TmpfsOptions={"SizeBytes": 3 << 20, "Mode": 0o700, "Options": [["exec"], ["uid", "1000"]]}),
         OPTIONS_ECHO + "; stat -c %u:%a /mnt/it", "(?s)rw,nosuid,nodev,relatime,size=3072k.*1000:700"),
    Case("H.Mounts.ImageOptions.Subpath", mount(Type="image", Source="busybox", ImageOptions={"Subpath": "etc"}), "cat /mnt/it/passwd | head -1; touch /mnt/it/x 2>&1 || echo refused",
         "(?s)root:.*ead-only.*refused", shown={"Mounts.0.Type": "image", "Mounts.0.Name": "busybox", "Mounts.0.RW": False}),
    Case("H.Mounts.Type", mount(Type="image", Source="no-such-image"), refused=(404, "No such image: no-such-image:latest")),
    Case("H.Mounts.ImageOptions.Subpath", mount(Type="image", Source="busybox", ImageOptions={"Subpath": "../x"}), refused=(400, "subpath must be a relative path")),
    Case("H.Mounts.Type", mount(Type="cluster", Source="x"), refused=(400, 'type "cluster": mount type unknown')),
    Case("H.Mounts.Type", mount(Type="npipe", Source="x"), refused=(400, 'type "npipe": mount type unknown')),
    # --- HostConfig: network
    Case("H.Dns H.DnsSearch H.DnsOptions", host(NetworkMode="bridge", Dns=["10.1.2.3"], DnsSearch=["a.example"], DnsOptions=["ndots:3"]), "cat /etc/resolv.conf",
         "nameserver 10.1.2.3\nsearch a.example\noptions ndots:3"),
    Case("H.ExtraHosts", host(ExtraHosts=["far:10.1.2.3"]), "grep far /etc/hosts", r"10.1.2.3\sfar"),
    Case("H.Links", host(NetworkMode="bridge", Links=["fields-linked:db"]), "grep -w db /etc/hosts", r"10\.\S+\sdb \w+ fields-linked|\S+\sdb \w+ fields-linked", warned="Links on the default bridge"),
    Case("H.PortBindings.*.HostIp H.PortBindings.*.HostPort", host(NetworkMode="bridge", PortBindings={"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]}),
         "sleep 100", shown={"NetworkSettings.Ports.80/tcp.0.HostIp": "127.0.0.1"}),
    Case("H.PublishAllPorts", {"ExposedPorts": {"81/udp": {}}, **host(NetworkMode="bridge", PublishAllPorts=True)}, "sleep 100", shown={"NetworkSettings.Ports.81/udp.0.HostIp": "0.0.0.0"}),
    # --- HostConfig: life
    Case("H.LogConfig.Type H.LogConfig.Config", host(LogConfig={"Type": "json-file", "Config": {"max-size": "1m"}}), "echo logged", "logged",
         shown={"HostConfig.LogConfig.Type": "json-file", "HostConfig.LogConfig.Config": {"max-size": "1m"}}),
    Case("H.RestartPolicy.Name H.RestartPolicy.MaximumRetryCount", host(RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 2}),
         shown={"HostConfig.RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}),
    Case("H.AutoRemove", host(AutoRemove=True), shown={"HostConfig.AutoRemove": True}),
    Case("H.ConsoleSize", {"Tty": True, **host(ConsoleSize=[30, 77])}, "stty size", "30 77"),
    Case("H.ContainerIDFile", host(ContainerIDFile="/x"), shown={"HostConfig.ContainerIDFile": "/x"}),
    # --- NetworkingConfig
    Case("E.MacAddress", endpoint(MacAddress=MAC), "cat /sys/class/net/eth0/address", MAC),
    Case("E.MacAddress", endpoint(MacAddress="01:00:00:00:00:01"), refused=(400, "invalid MAC")),
    Case("E.DriverOpts", endpoint(DriverOpts={"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1"}), "cat /proc/sys/net/ipv4/conf/eth0/log_martians", "1"),
    Case("E.DriverOpts", endpoint(DriverOpts={"other": "x"}), refused=(501, "DriverOpts: other")),
    Case("E.GwPriority", endpoint(GwPriority=7), shown={"NetworkSettings.Networks.bridge.GwPriority": 7}),
    Case("E.Aliases", endpoint(Aliases=["x"]), refused=(400, "network-scoped aliases")),
    Case("E.Links", endpoint(Links=["x:y"]), refused=(400, "links of an endpoint need a user-defined network")),
    Case("E.IPAMConfig.IPv4Address", endpoint(IPAMConfig={"IPv4Address": "10.9.9.9"}), refused=(400, "user-specified IP address")),
    Case("E.IPAMConfig.IPv6Address", endpoint(IPAMConfig={"IPv6Address": "fd00::9"}), refused=(400, "user-specified IP address")),
    Case("E.IPAMConfig.IPv6Address", endpoint("fields-dual", "fields-dual", IPAMConfig={"IPv6Address": "fd00:97::9"}), "ip -6 -o addr show eth0", "(?s).*fd00:97::9/64.*",
         shown={"NetworkSettings.Networks.fields-dual.IPAMConfig": {"IPv6Address": "fd00:97::9"}}),
    Case("H.PortBindings.*.HostIp", host(NetworkMode="fields-dual", PortBindings={"80/tcp": [{"HostIp": "::1"}]}), "sleep 100", shown={"NetworkSettings.Ports.80/tcp.0.HostIp": "::1"}),
    Case("E.IPAMConfig.LinkLocalIPs", endpoint(IPAMConfig={"LinkLocalIPs": ["169.254.1.1"]}), refused=(400, "user-specified IP address")),
    Case(" ".join(f"E.{name}" for name in OPERATIONAL), endpoint(**OPERATIONAL), "ls /sys/class/net/", "(?s).*eth0.*", shown={"NetworkSettings.Networks.bridge.DNSNames": None}),
]  # fmt: skip
