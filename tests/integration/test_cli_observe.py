"""stats, update, events, info, version and the system verbs, beside the docker command line on the same engine."""

import json
import os
import pty
import re
import signal
import subprocess
import time

import pytest

from tests.conftest import SCRIPTS, wait_until


@pytest.fixture
def pair(shared_engine):
    """Two containers that run, one that does not."""
    run = shared_engine.run
    names = ("watched", "still", "never")
    run(
        "run",
        "-d",
        "--name",
        "watched",
        "--network",
        "none",
        "-m",
        "64m",
        "busybox",
        "sh",
        "-c",
        "while :; do sleep 0.01; done",
    )
    run("run", "-d", "--name", "still", "--network", "none", "-v", "cli-volume:/data", "busybox", "sleep", "600")
    run("create", "--name", "never", "--network", "none", "busybox")
    yield shared_engine
    run("rm", "-f", *names, check=False)
    run("volume", "rm", "cli-volume", check=False)


ROW = re.compile(
    r"[0-9a-f]{12}   (watched|still|never) +\d+\.\d\d%  +[\d.]+(B|[KMG]iB) / [\d.]+(B|[KMG]iB) +\d+\.\d\d% "
    r"+[\d.]+k?B / [\d.]+k?B +[\d.]+[kM]?B / [\d.]+[kM]?B +\d+"
)


def test_stats_once_in_docker_s_table(pair):
    ours, theirs = (program("stats", "--no-stream").stdout.splitlines() for program in (pair.run, pair.docker))
    assert ours[0].split() == theirs[0].split()
    for lines in (ours, theirs):
        assert [ROW.fullmatch(line)[1] for line in lines[1:]] == ["still", "watched"]
    shown = pair.run("stats", "-a", "--no-stream", "--no-trunc", "--format", "json", "watched", "never").stdout
    row, never = (json.loads(line) for line in shown.splitlines())
    assert row.keys() == {"BlockIO", "CPUPerc", "Container", "ID", "MemPerc", "MemUsage", "Name", "NetIO", "PIDs"}
    assert (row["Container"], row["Name"], len(row["ID"])) == ("watched", "watched", 64)
    assert row["MemUsage"].endswith(" / 64MiB")
    assert (never["Name"], never["PIDs"], never["MemUsage"]) == ("never", "0", "0B / 0B")
    missing = pair.run("stats", "--no-stream", "nobody", check=False)
    assert (missing.returncode, missing.stderr) == (1, "knarr: No such container: nobody\n")


def test_stats_live_on_a_terminal(pair):
    master, slave = pty.openpty()
    process = subprocess.Popen([SCRIPTS / "knarr", "stats"], env=pair.env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    os.set_blocking(master, False)
    seen = bytearray()

    def picture():
        """The last whole picture."""
        try:
            while True:
                seen.extend(os.read(master, 65536))
        except BlockingIOError:
            return bytes(seen).split(b"\x1b[H")[-2:-1]
        except OSError:  # the terminal has closed
            return []

    wait_until(lambda: picture() and b"watched" in picture()[0], what="a picture with the container")
    assert b"\x1b[K" in seen
    pair.run("start", "never")
    pair.run("run", "-d", "--name", "later", "--network", "none", "busybox", "sleep", "60")
    wait_until(lambda: b"later" in picture()[0], what="a container that came later")
    pair.run("rm", "-f", "later")
    wait_until(lambda: b"later" not in picture()[0], what="its end")
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    os.close(master)


def test_stats_end_with_the_last_container_that_was_named(pair):
    process = subprocess.Popen([SCRIPTS / "knarr", "stats", "still"], env=pair.env, stdout=subprocess.PIPE)
    assert process.stdout.readline().startswith(b"CONTAINER ID")
    pair.run("rm", "-f", "still")
    assert process.wait(10) == 0
    process.stdout.close()


def test_update(pair):
    shown = pair.run("update", "--memory", "80m", "--memory-swap", "-1", "--cpus", "0.5", "--pids-limit", "40", "--restart", "on-failure:3", "watched", "still")  # fmt: skip
    assert shown.stdout == "watched\nstill\n"
    host = json.loads(pair.run("inspect", "watched").stdout)[0]["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (80 << 20, -1, 500_000_000, 40)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    bad = pair.run("update", "watched", check=False)
    assert (bad.returncode, bad.stderr) == (1, "knarr: you must provide one or more flags when using this command\n")
    half = pair.run("update", "--pids-limit", "-1", "nobody", "still", check=False)
    assert (half.returncode, half.stdout, half.stderr) == (1, "still\n", "knarr: No such container: nobody\n")


def test_events_are_printed_as_docker_prints_them(pair):
    since = f"{time.time():.6f}"
    pair.run("kill", "still")
    pair.run("rm", "still")
    until = f"{time.time():.6f}"
    given = ("events", "--since", since, "--until", until)
    assert pair.run(*given).stdout == pair.docker(*given).stdout
    assert " container destroy " in pair.run(*given, "--filter", "event=destroy").stdout
    form = "{{.Time}} {{.TimeNano}} {{.Scope}} {{.Type}} {{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}}"
    assert pair.run(*given, "--format", form).stdout == pair.docker(*given, "--format", form).stdout
    lines = [json.loads(line) for line in pair.run(*given, "--format", "json").stdout.splitlines()]
    assert {line["Action"] for line in lines} >= {"kill", "die", "destroy"}
    assert pair.run("system", *given).stdout == pair.run(*given).stdout
    for verb in ("events", "info", "version"):
        wrong = pair.run(verb, "--format", "{{.Nope", check=False)
        assert wrong.returncode == 64


def test_disk_usage_is_docker_s_table(pair):
    assert pair.run("system", "df").stdout == pair.docker("system", "df").stdout
    form = "{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}} {{.Reclaimable}}"
    assert pair.run("system", "df", "--format", form).stdout == pair.docker("system", "df", "--format", form).stdout
    ours, theirs = (program("system", "df", "-v").stdout for program in (pair.run, pair.docker))
    ours, theirs = (
        re.sub(" +", " ", re.sub(r"\d+ seconds?|Less than a second", "N", text)).split("\n\n")[2:]
        for text in (ours, theirs)
    )
    assert ours == theirs
    found = json.loads(pair.run("system", "df", "-v", "--format", "json").stdout)
    names = [volume["Name"] for volume in found["Volumes"]]
    assert "cli-volume" in names
    assert (
        pair.run("system", "df", "-v", "--format", "{{range .Volumes}}{{.Name}}{{end}}").stdout == f"{''.join(names)}\n"
    )


def test_info_and_version(pair):
    ours = pair.run("info").stdout.partition("Server:")[2].splitlines()
    theirs = pair.docker("info").stdout.partition("Server:")[2].splitlines()
    without = {" containerd version: ", " runc version: ", " init version: "}  # knarr has none of these
    without |= {" Registry: https://index.docker.io/v1/", " Labels:"}  # docker 20.10 writes these
    assert [line for line in theirs if line not in without and "Firewall" not in line] == [
        line for line in ours if "Firewall" not in line
    ]
    form = "{{.ServerVersion}} {{.NCPU}} {{.CPUCfsPeriod}} {{.HTTPProxy}} {{json .Swarm.LocalNodeState}}"
    assert pair.run("info", "--format", form).stdout == pair.docker("info", "--format", form).stdout
    assert pair.run("system", "info", "--format", "{{.ID}}").stdout == pair.run("info", "-f", "{{.ID}}").stdout
    form = "{{.Server.Version}} {{.Server.APIVersion}} {{.Server.MinAPIVersion}} {{.Server.Os}}/{{.Server.Arch}}"
    assert pair.run("version", "--format", form).stdout == pair.docker("version", "--format", form).stdout
    shown = pair.run("version").stdout
    assert re.search(r"^Client:\n Version:           \S+\n", shown)
    assert re.search(r"^Server: knarr\n Engine:\n  Version:          \S+\n", shown, re.MULTILINE)


def test_system_prune_asks_filters_and_adds_up(engine):
    run = engine.run
    engine.run("load", "-q", "-i", _archive())
    run("run", "--name", "gone", "--network", "none", "-v", "/anonymous", "busybox", "sh", "-c", "echo hello > /file")
    run("create", "--name", "kept", "--label", "keep", "--network", "none", "busybox")
    asked = run("system", "prune", "--volumes", input="n\n")
    assert "all stopped containers" in asked.stdout
    assert "all anonymous volumes not used by at least one container" in asked.stdout
    assert run("ps", "-aq").stdout.count("\n") == 2
    identity = run("inspect", "-f", "{{.Id}}", "gone").stdout.strip()
    shown = run("system", "prune", "-f", "--filter", "label!=keep").stdout
    assert shown.startswith(f"Deleted Containers:\n{identity}\n\n")
    assert re.search(r"Total reclaimed space: \d+(\.\d+)?k?B\n$", shown)
    refused = run("system", "prune", "-f", "--volumes", "--filter", "until=1h", check=False)
    assert refused.stderr == 'knarr: the "until" filter is not supported with "--volumes"\n'
    shown = run("system", "prune", "-a", "-f", "--volumes").stdout
    assert "Deleted Volumes:" in shown
    assert "untagged: busybox:latest" in shown
    assert run("ps", "-aq").stdout == run("images", "-q").stdout == run("volume", "ls", "-q").stdout == ""


def _archive():
    from tests.conftest import busybox_archive

    return busybox_archive()
