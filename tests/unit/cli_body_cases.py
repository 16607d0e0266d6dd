"""Command lines of `create`, and what becomes of a body that Docker's client sends before it is compared with ours.

FILES are made in the working directory before a case runs; ENVIRONMENT is set.
"""

ENVIRONMENT = {"FROM_HERE": "here"}
FILES = {
    "env.list": "\ufeff# a comment\nA=1\n\n  B=two words\nFROM_HERE\nNOT_SET\nC=\n",
    "labels.list": "one=1\ntwo\n",
    "seccomp.json": '{\n  "defaultAction": "SCMP_ACT_ALLOW",\n  "syscalls": []\n}\n',
}
CASES = [
    "busybox",
    "busybox true",
    "busybox sh -c 'echo $HOME' -- -x --name y",
    "-i busybox cat",
    "-i -a stdin busybox cat",
    "-a stdout -a STDERR busybox",
    "-it busybox",
    "-t busybox",
    "--name web --rm --init busybox",
    "--init=false busybox",
    "-e A=1 -e B= -e FROM_HERE -e NOT_SET --env=C=a=b busybox",
    "--env-file env.list -e A=2 busybox",
    "-l a=b --label c --label-file labels.list busybox",
    "-w /work -u 1000:1000 --entrypoint /bin/sh busybox -c true",
    "--entrypoint= busybox",
    "-h host --domainname example.org busybox",
    "--hostname=host busybox",
    "-v /a:/b -v /c:/d:ro -v data:/data -v /anonymous --volume ./x:/x busybox",
    "-v name:/path:nocopy -v /a:/b:rshared,ro busybox",
    "--tmpfs /run --tmpfs /tmp:size=64m,mode=1777 busybox",
    "--mount type=bind,src=/a,dst=/b,readonly busybox",
    "--mount type=bind,source=./rel,target=/b,bind-propagation=rslave,bind-recursive=disabled busybox",
    "--mount type=bind,src=/a,dst=/b,ro=true,bind-recursive=writable busybox",
    "--mount type=bind,src=/a,dst=/b,ro=1,bind-recursive=readonly,bind-propagation=rprivate busybox",
    "--mount src=data,dst=/d,volume-nocopy,volume-label=a=b,volume-driver=local,volume-opt=type=nfs busybox",
    "--mount type=volume,src=data,dst=/d,volume-subpath=sub busybox",
    "--mount type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1770 busybox",
    """--mount 'type=bind,"src=/a,b",dst=/b' busybox""",
    "--volumes-from other --volumes-from more:ro busybox",
    "--volume-driver local -v data:/x busybox",
    "-p 80 busybox",
    "-p 8080:80 -p 127.0.0.1:53:53/udp -p 127.0.0.1::443 busybox",
    "-p 8000-8002:9000-9002 -p 8100-8110:81 busybox",
    "-p [::1]:8080:80/TCP busybox",
    "-p published=8080,target=80,protocol=udp busybox",
    "-p 8080:80 -p 8081:80 busybox",
    "--expose 80 --expose 90-92/udp -P busybox",
    "--network none busybox",
    "--network host busybox",
    "--net container:other busybox",
    "--network mine --network-alias one --net-alias two --ip 10.1.2.3 --mac-address 02:42:AC:11:00:02 busybox",
    "--network name=mine,alias=a,alias=b,ip=10.0.0.5,mac-address=02:42:ac:11:00:03,driver-opt=k=v busybox",
    "--network one --network name=two,alias=x busybox",
    "--link other:alias busybox",
    "--add-host a:10.0.0.1 --add-host b=::1 --add-host c:host-gateway --add-host d=[fe80::1] busybox",
    "--dns 1.1.1.1 --dns 2606:4700::1111 --dns-search example.org --dns-search . --dns-opt ndots:2 --dns-option rotate busybox",
    "--cap-add NET_ADMIN --cap-drop ALL --cap-add sys_time busybox",
    "--privileged --read-only busybox",
    "--security-opt no-new-privileges --security-opt seccomp=unconfined --security-opt apparmor=x busybox",
    "--security-opt seccomp=seccomp.json busybox",
    "--security-opt systempaths=unconfined --security-opt label:disable busybox",
    "--pid host --ipc host --uts host --userns host --cgroupns host busybox",
    "--pid container:other --ipc shareable --cgroupns=private busybox",
    "--sysctl net.core.somaxconn=1024 --sysctl kernel.shmmax=1 busybox",
    "-m 512m --memory-reservation 256M --memory-swap 1g --memory-swappiness 10 busybox",
    "--memory=1.5g --memory-swap -1 busybox",
    "--cpus 1.5 -c 512 --cpu-period 100000 --cpu-quota 50000 --cpuset-cpus 0-1 --cpuset-mems 0 busybox",
    "--cpus=.25 --cpu-rt-period 1000 --cpu-rt-runtime 500 busybox",
    "--pids-limit 100 --oom-kill-disable --oom-score-adj -500 --shm-size 128m busybox",
    "--pids-limit=-1 --cgroup-parent /x busybox",
    "--ulimit nofile=1024:2048 --ulimit core=0 --ulimit nproc=-1 --ulimit nofile=10 busybox",
    "--blkio-weight 100 --blkio-weight-device /dev/sda:200 busybox",
    "--device-read-bps /dev/sda:1mb --device-write-iops /dev/sda:100 --device-read-iops /dev/sda:5 --device-write-bps /dev/sda:1 busybox",
    "--device /dev/fuse --device /dev/sda:/dev/xvda --device /dev/sdb:r --device /dev/sdc:/dev/d:rw busybox",
    "--device-cgroup-rule 'c 1:3 rwm' --device-cgroup-rule 'b *:* r' busybox",
    "--group-add audio --group-add 50 busybox",
    "--restart always busybox",
    "--restart on-failure:3 busybox",
    "--restart unless-stopped busybox",
    "--log-driver json-file --log-opt max-size=10m --log-opt max-file=3 busybox",
    "--log-driver none busybox",
    "--storage-opt size=10G busybox",
    "--stop-signal SIGINT --stop-timeout 3 busybox",
    "--stop-timeout=0 busybox",
    "--health-cmd 'curl localhost' --health-interval 1m30s --health-timeout 3s --health-retries 2 --health-start-period 5s busybox",
    "--health-start-interval 500ms busybox",
    "--no-healthcheck busybox",
    "--annotation a=b busybox",
    "--isolation default busybox",
    "--platform linux/arm64 --pull never busybox",
    "-dit busybox",
    "-d -p 80:80 --name x busybox sleep 1",
    "--gpus all busybox",
    "--gpus 2 --gpus driver=nvidia,count=1 busybox",
    """--gpus '"device=0,1","capabilities=compute,utility",driver=x,"options=a=b,c=d"' busybox""",
    "--gpus device=0 busybox",
    "--runtime runc busybox",
    "--isolation default --runtime io.containerd.runc.v2 busybox",
]
RUN_ONLY = ("-dit", "-d ")


def verb(case: str) -> str:
    """`run` for what only run has; the recorded body is that of its create."""
    return "run" if case.startswith(RUN_ONLY) else "create"


def essence(value, key=""):
    """A body without what says the same as nothing, so that two clients' ways of saying nothing compare equal.

    - null, "", 0, false, [] and {} mean absent; so do the defaults that Docker's client spells out: MemorySwappiness -1,
      ConsoleSize [0, 0], RestartPolicy no. Empty MaskedPaths and ReadonlyPaths mean something: they stay.
    - Docker's client sends environment variables in no certain order (it goes through a map), binds too.
    - Docker's client 28 writes capabilities as CAP_X; 29 and ours send them as given, and the engine knows both.
    """
    if isinstance(value, dict):
        if key in ("ExposedPorts", "Volumes", "Labels", "Tmpfs", "Sysctls", "Annotations", "Config", "StorageOpt"):
            return value
        small = {name: essence(item, name) for name, item in value.items()}
        kept = {
            name: item
            for name, item in small.items()
            if item not in (None, "", 0, [], {}) or _says_something(name, value[name])
        }
        if (key, kept) in (("RestartPolicy", {"Name": "no"}), ("EndpointsConfig", {"default": {}})):
            return {}
        return kept
    if isinstance(value, list):
        if key == "ConsoleSize":
            return []
        if key in ("CapAdd", "CapDrop"):
            return [item.upper().removeprefix("CAP_") for item in value]
        items = [essence(item) for item in value]
        return sorted(items) if key in ("Env", "Binds") else items
    if key == "MemorySwappiness" and value == -1:
        return None
    if key == "MacAddress" and isinstance(value, str):
        return value.lower()
    return value


def _says_something(name, empty):
    """Whether an empty value differs from an absent one."""
    if name in ("Init", "StopTimeout"):
        return empty is not None
    return (name in ("MaskedPaths", "ReadonlyPaths") and empty == []) or (
        name in ("default", "one", "two", "mine") and empty is not None
    )
