"""`knarr run`, exec and attach in the foreground: streams, exit codes, signals, and an engine that goes away."""

import hashlib
import os
import signal
import subprocess
import time
import uuid

import pytest

from tests.conftest import SCRIPTS, busybox_archive, new_engine, wait_until
from tests.image_files import Layout, files, upload

KNARR = SCRIPTS / "knarr"
QUICK = ["--rm", "--network", "none"]


@pytest.fixture
def name(shared_engine):
    value = "fg-" + uuid.uuid4().hex[:8]
    yield value
    shared_engine.run("rm", "-f", "-v", value, check=False)


def status(engine, name):
    return engine.run("inspect", "--format", "{{.State.Status}}", name, check=False).stdout.strip()


def background(engine, *arguments, **keywords):
    keywords.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen(
        [KNARR, *arguments], env=engine.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **keywords
    )


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
        (["nope"], 127),
        (["/etc"], 126),
        (["/nope/x"], 127),
    ],
)
def test_exit_codes(shared_engine, command, code):
    assert shared_engine.run("run", *QUICK, "busybox", *command, check=False).returncode == code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nope", "busybox"], "unknown flag: --nope"),
        (["-m", "lots", "busybox"], "invalid size"),
        (["--pull", "sometimes", "busybox"], "invalid pull option"),
        (["--rm", "--restart", "always", "busybox"], "cannot specify both --restart and --rm"),
        (["--runtime", "kata", "busybox"], "unknown or invalid runtime name: kata"),
        (["-v", "a::b", "busybox"], "empty section"),
        (["--network", "nowhere", "busybox", "true"], "nowhere"),
        (["--pull", "never", "nobody/nothing:1"], "nobody/nothing:1"),
    ],
)
def test_what_run_refuses_is_125_with_a_reason(shared_engine, arguments, words):
    result = shared_engine.run("run", *arguments, check=False)
    assert result.returncode == 125
    assert result.stderr.startswith("knarr: ")
    assert words in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["-it", "busybox"], "not a TTY"), (["-d", "-a", "stdout", "busybox"], "both --attach and --detach")],
)
def test_options_that_do_not_go_together_are_1(shared_engine, arguments, words):
    result = shared_engine.run("run", *arguments, check=False)
    assert result.returncode == 1
    assert words in result.stderr


@pytest.mark.parametrize("arguments", [["run"], ["run", "--rm"], ["create"], ["rm"], ["tag", "busybox"], ["ps", "x"]])
def test_a_wrong_number_of_arguments_is_1_with_the_usage(shared_engine, arguments):
    result = shared_engine.run(*arguments, check=False)
    assert result.returncode == 1
    assert f"Usage:  knarr {arguments[0]} " in result.stderr
    assert f"See 'knarr {arguments[0]} --help'" in result.stderr
    assert ("[OPTIONS]" in result.stderr) == (arguments[0] != "tag")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["imagess"], "'imagess' is not a knarr command; did you mean images?"),
        (["xyzzy"], "'xyzzy' is not a knarr command\n"),
        (["image", "inspekt"], "'inspekt' is not a verb of 'image'; did you mean inspect?"),
    ],
)
def test_an_unknown_verb_is_1_and_the_nearest_is_named(shared_engine, arguments, words):
    result = shared_engine.run(*arguments, check=False)
    assert result.returncode == 1
    assert words in result.stderr


def test_ports_that_the_hosts_network_makes_useless_are_told(shared_engine):
    result = shared_engine.run("run", "--rm", "--network", "host", "-p", "80:80", "busybox", "true")
    assert result.stderr == "WARNING: Published ports are discarded when using host network mode\n"


def test_an_image_of_another_platform_is_pulled(shared_engine, registry):
    layout = Layout()
    arm, riscv = (layout.image([files(name=name)], architecture=name) for name in ("arm64", "riscv64"))
    reference = upload(layout, registry.host, "run/platforms", "1", layout.index(arm, riscv))
    shared_engine.run("pull", "--platform", "linux/arm64", reference)
    other = ["create", "--platform", "linux/riscv64", reference, "true"]
    refused = shared_engine.run("create", "--pull", "never", *other[1:], check=False)
    assert refused.returncode == 1
    assert "does not match the specified platform (linux/riscv64)" in refused.stderr
    made = shared_engine.run(*other)
    assert f"Unable to find image '{reference}' for linux/riscv64 locally" in made.stderr
    container = made.stdout.strip()
    image = shared_engine.run("inspect", "-f", "{{.Image}}", container).stdout.strip()
    assert shared_engine.run("image", "inspect", "-f", "{{.Architecture}}", image).stdout == "riscv64\n"
    shared_engine.run("rm", container)


def test_stdout_and_stderr_stay_apart(shared_engine):
    result = shared_engine.run("run", *QUICK, "busybox", "sh", "-c", "echo out; echo err >&2; echo more")
    assert (result.stdout, result.stderr) == ("out\nmore\n", "err\n")


def test_much_goes_through_unharmed_both_ways(shared_engine):
    data = os.urandom(20 << 20)
    result = shared_engine.run("run", *QUICK, "-i", "busybox", "cat", input=data, text=False)
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_slow_reader_gets_everything(shared_engine, name, verb):
    """More than is kept for a client: as in any pipeline the program waits."""
    amount = 400_000_000
    write = f"head -c {amount} /dev/zero"
    command = f"{KNARR} run {' '.join(QUICK)} busybox {write}"
    if verb == "exec":
        shared_engine.run("run", "-d", "--name", name, "--network", "none", "busybox", "sleep", "100")
        command = f"{KNARR} exec {name} {write}"
    result = subprocess.run(
        ["sh", "-c", f"{command} | (sleep 1; wc -c)"],
        env=shared_engine.env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (result.stdout.strip(), result.stderr) == (str(amount), "")


def test_an_output_that_is_cut_off_is_told_of(shared_engine, name):
    """As where the supervisor is killed: the container writes on, and nobody may think that this was all."""
    own = new_engine()
    own.start()
    try:
        own.run("load", "-q", "-i", busybox_archive())
        process = background(own, "run", *QUICK, "--name", name, "busybox", "sh", "-c", "echo ready; sleep 4; exit 7")
        assert process.stdout.readline() == b"ready\n"
        os.kill(max(own.supervisor_pids()), signal.SIGKILL)
        said = process.communicate(timeout=30)[1].decode()
        assert process.returncode == 7
        assert "was cut off, and it runs on: `knarr logs` has what it writes" in said
    finally:
        own.stop()


def test_a_program_that_reads_little_of_much_ends(shared_engine):
    result = shared_engine.run(
        "run",
        *QUICK,
        "-i",
        "busybox",
        "sh",
        "-c",
        "head -c 10 >/dev/null; exit 3",
        input=b"x" * (20 << 20),
        text=False,
        check=False,
    )
    assert result.returncode == 3


def test_without_i_stdin_is_left_alone(shared_engine):
    out = subprocess.run(
        ["sh", "-c", f"{{ {KNARR} run --rm --network none busybox cat; cat; }}"],
        env=shared_engine.env,
        input=b"for the next",
        capture_output=True,
        timeout=30,
    ).stdout
    assert out == b"for the next"


def test_a_reader_that_leaves_is_no_noise(shared_engine, name):
    result = subprocess.run(
        [
            "bash",
            "-c",
            f"{KNARR} run --name {name} --network none busybox sh -c 'while echo y; do :; done' | head -n 1; echo ${{PIPESTATUS[0]}}",
        ],
        env=shared_engine.env,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (result.stdout, result.stderr) == ("y\n141\n", "")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 41), (signal.SIGINT, 42), (signal.SIGHUP, 43), (signal.SIGUSR1, 44)]
)
def test_signals_reach_the_program(shared_engine, name, number, code):
    script = "trap 'exit 41' TERM; trap 'exit 42' INT; trap 'exit 43' HUP; trap 'exit 44' USR1; echo ready; while :; do sleep 0.05; done"
    process = background(shared_engine, "run", *QUICK, "--name", name, "busybox", "sh", "-c", script)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.wait(20) == code


def test_without_sig_proxy_a_signal_ends_the_command_only(shared_engine, name):
    process = background(
        shared_engine,
        "run",
        "--sig-proxy=false",
        "--network",
        "none",
        "--name",
        name,
        "busybox",
        "sh",
        "-c",
        "echo ready; sleep 60",
    )
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert status(shared_engine, name) == "running"


def test_a_signal_while_nobody_reads_the_output_is_forwarded_too(shared_engine, name):
    script = "trap 'exit 9' TERM; while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done"
    process = background(shared_engine, "run", *QUICK, "--name", name, "busybox", "sh", "-c", script)
    assert process.stdout.read(100)
    time.sleep(0.5)  # our pipe is full now, and the command line waits in its write
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: status(shared_engine, name) in ("", "exited"), what="the end of the container")
    process.stdout.read()
    assert process.wait(20) == 9


def test_detached_prints_the_id_only(shared_engine, name):
    out = shared_engine.run("run", "-d", "--network", "none", "--name", name, "busybox", "sleep", "60")
    assert len(out.stdout) == 65
    assert out.stderr == ""
    assert out.stdout.strip() == shared_engine.run("ps", "-q", "--no-trunc", "--filter", f"name={name}").stdout.strip()


def test_a_name_is_free_again_after_rm(shared_engine, name):
    for _ in range(5):
        shared_engine.run("run", *QUICK, "--name", name, "busybox", "true")
    for _ in range(2):
        assert shared_engine.run("run", *QUICK, "--name", name, "busybox", "nope", check=False).returncode == 127


def test_cidfile(shared_engine, name, tmp_path):
    path = tmp_path / "cid"
    out = shared_engine.run("create", "--cidfile", path, "--name", name, "busybox")
    assert path.read_text() == out.stdout.strip()
    again = shared_engine.run("create", "--cidfile", path, "busybox", check=False)
    assert (again.returncode, "container ID file found" in again.stderr) == (1, True)
    assert (
        shared_engine.run(
            "run", "--cidfile", tmp_path / "other", "--pull", "never", "nobody/nothing", check=False
        ).returncode
        == 125
    )
    assert not (tmp_path / "other").exists()


def test_start_attached(shared_engine, name):
    shared_engine.run("create", "-i", "--network", "none", "--name", name, "busybox", "sh", "-c", "cat; exit 6")
    result = shared_engine.run("start", "-ai", name, input="typed\n", check=False)
    assert (result.returncode, result.stdout) == (6, "typed\n")


def test_attach_follows_to_the_end(shared_engine, name):
    shared_engine.run(
        "run", "-d", "--network", "none", "--name", name, "busybox", "sh", "-c", "sleep 1; echo late; exit 8"
    )
    result = shared_engine.run("attach", "--no-stdin", name, check=False)
    assert (result.returncode, result.stdout) == (8, "late\n")
    assert shared_engine.run("attach", name, check=False).returncode == 1


def test_exec(shared_engine, name):
    shared_engine.run("run", "-d", "--network", "none", "--name", name, "busybox", "sleep", "60")
    result = shared_engine.run(
        "exec", "-e", "A=b", "-w", "/tmp", name, "sh", "-c", "echo $A $PWD; echo err >&2; exit 5", check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (5, "b /tmp\n", "err\n")
    assert shared_engine.run("exec", "-i", name, "cat", input="x\n").stdout == "x\n"
    assert shared_engine.run("exec", name, "nope", check=False).returncode == 127
    assert shared_engine.run("exec", "-d", name, "touch", "/made").returncode == 0
    wait_until(
        lambda: shared_engine.run("exec", name, "test", "-e", "/made", check=False).returncode == 0,
        what="the detached exec",
    )
    missing = shared_engine.run("exec", "nobody-here", "true", check=False)
    assert (missing.returncode, "No such container" in missing.stderr) == (1, True)


def test_logs(shared_engine, name):
    shared_engine.run(
        "run",
        "--network",
        "none",
        "--name",
        name,
        "busybox",
        "sh",
        "-c",
        "echo one; echo two >&2; sleep 0.2; echo three",
    )
    result = shared_engine.run("logs", name)
    assert (result.stdout, result.stderr) == ("one\nthree\n", "two\n")
    assert shared_engine.run("logs", "-n", "1", name).stdout == "three\n"
    assert shared_engine.run("logs", "-t", "--since", "10m", name).stdout.split("\n")[0].endswith("Z one")
    assert shared_engine.run("logs", "--until", "10m", name).stdout == ""


def test_an_exit_is_known_although_the_daemon_was_killed_meanwhile(busybox):
    process = background(
        busybox, "run", "--network", "none", "--name", "fore", "busybox", "sh", "-c", "echo ready; sleep 3; exit 12"
    )
    assert process.stdout.readline() == b"ready\n", process.stderr.read()
    busybox.restart()
    assert process.wait(30) == 12


def test_a_daemon_that_stays_away_is_an_error_and_no_hang(busybox):
    process = background(
        busybox, "run", "--network", "none", "--name", "fore", "busybox", "sh", "-c", "echo ready; sleep 60"
    )
    assert process.stdout.readline() == b"ready\n", process.stderr.read()
    busybox.kill()
    assert process.wait(30) == 125
    assert b"lost the daemon" in process.stderr.read()
    busybox.start()
    assert status(busybox, "fore") == "running"


def test_hello_works_without_any_registry(shared_engine):
    result = shared_engine.run("run", "--rm", "hello")
    assert "knarr" in result.stdout.lower()


def test_a_host_overlay_is_thrown_away(shared_engine):
    marker = f"/var/tmp/knarr-overlay-{uuid.uuid4().hex}"
    result = shared_engine.run(
        "run", *QUICK, "--host-overlay", "sh", "-c", f"touch {marker} && ls {marker} && exit 4", check=False
    )
    assert (result.returncode, result.stdout) == (4, f"{marker}\n")
    assert not os.path.exists(marker)
