"""The small notations of options: sizes, durations, mounts, ports, devices, times, detach keys."""

import time

import pytest

from knarr.cli import container_body, devices, endpoints, mounts, ports, times, values
from knarr.cli.session import DetachKeys, detach_keys
from knarr.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("512", 512),
        ("512b", 512),
        ("1k", 1024),
        ("1K", 1024),
        ("1kb", 1024),
        ("1KiB", 1024),
        ("512m", 512 << 20),
        ("1.5g", 3 << 29),
        ("2 GB", 2 << 30),
        ("1t", 1 << 40),
        (".5k", 512),
        ("1p", 1 << 50),
    ],
)
def test_sizes(text, count):
    assert values.size(text) == count


@pytest.mark.parametrize("text", ["", "x", "-1", "1x", "1mm", "1.2.3", "m", "1 2", "1ib", "\u0663", "9999999p", "1kbb"])
def test_no_sizes(text):
    with pytest.raises(InvalidArgument, match="invalid size"):
        values.size(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("1s", 10**9),
        ("1m30s", 90 * 10**9),
        ("1.5h", 5400 * 10**9),
        ("300ms", 3 * 10**8),
        ("5us", 5000),
        (".5s", 5 * 10**8),
    ],
)
def test_durations(text, nanoseconds):
    assert values.duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "1", "s", "-1s", "1x", "1s2", "1.s.", "\u0661s5"])
def test_no_durations(text):
    with pytest.raises(InvalidArgument, match="invalid duration"):
        values.duration(text)


@pytest.mark.parametrize(
    ("text", "nano"), [("1", 10**9), ("1.5", 15 * 10**8), (".25", 25 * 10**7), ("0.000000001", 1), ("2.", 2 * 10**9)]
)
def test_decimals(text, nano):
    assert values.nano(text) == nano


@pytest.mark.parametrize("text", ["", ".", "x", "-1", "1e3", "1.0000000001", "1/2"])
def test_no_decimals(text):
    with pytest.raises(InvalidArgument):
        values.nano(text)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("a,b", ["a", "b"]),
        ('"a,b",c', ["a,b", "c"]),
        ('"a""b"', ['a"b']),
        ("", [""]),
        ("a,", ["a", ""]),
        ('a,""', ["a", ""]),
    ],
)
def test_comma_separated(text, fields):
    assert values.fields(text) == fields


@pytest.mark.parametrize("text", ['a"b', '"a', '"a"b'])
def test_not_comma_separated(text):
    with pytest.raises(InvalidArgument):
        values.fields(text)


@pytest.mark.parametrize(
    ("spec", "message"),
    [("", "empty"), ("a::b", "empty section"), ("/a:/b:ro:x", "too many"), (":/b", "empty section")],
)
def test_no_volumes(spec, message):
    with pytest.raises(InvalidArgument, match=message):
        mounts.volume(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "key=value"),
        ("type=bind,src=/a", "no target"),
        ("type=bind,src=/a,dst=/b,foo=1", "unknown option 'foo'"),
        ("type=bind,src=/a,dst=/b,volume-nocopy", "cannot mix 'volume-"),
        ("type=tmpfs,dst=/b,tmpfs-mode=999", "octal"),
        ("type=tmpfs,dst=/b,tmpfs-size=x", "invalid size"),
        ("type=bind,src=/a,dst=/b,readonly=maybe", "must be one of"),
        ("type=bind,src=/a,dst=", "value is empty"),
        ("type=bind, src=/a,dst=/b", "whitespace"),
        ("type=bind,src=/a,dst=/b,bind-recursive=x", "must be"),
        ("type=bind,src=/a,dst=/b,bind-recursive=readonly", "requires 'readonly'"),
        ("type=bind,src=/a,dst=/b,bind-nonrecursive=true", "deprecated"),
        ("type=bind,src=/a,dst=/b,idmap=mine", 'must be "match-user"'),
        ("type=volume,src=a,dst=/b,idmap=match-user", "cannot mix 'bind-"),
    ],
)
def test_no_mounts(spec, message):
    with pytest.raises(InvalidArgument, match=message):
        mounts.mount(spec)


def test_a_mount_that_shows_other_ids():
    found = mounts.mount("type=bind,src=/a,dst=/b,idmap=match-user")
    assert found["BindOptions"] == {"IDMap": "match-user"}


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "x",
        "80:x",
        "70000",
        "1-0",
        "80/icmp",
        "1.2.3:80:80",
        "8000-8003:80-81",
        "300.0.0.1:80:80",
        "[::1:80:80",
        "80-",
        ":80:",
        "a=b,c",
    ],
)
def test_no_ports(spec):
    with pytest.raises(InvalidArgument):
        ports.publish(spec)


@pytest.mark.parametrize("spec", ["", "x", "80/x", "3-1"])
def test_no_exposed_ports(spec):
    with pytest.raises(InvalidArgument):
        ports.expose(spec)


@pytest.mark.parametrize("spec", ["", ":/x", "/a:b", "/a:/b:x", "/a:/b:rr", "/a:/b:c:d", "relative"])
def test_no_devices(spec):
    with pytest.raises(InvalidArgument):
        devices.device(spec)


@pytest.mark.parametrize("spec", ["", "nofile", "what=1", "nofile=x", "nofile=2:1", "nofile=-1:5", "nofile=1:2:3"])
def test_no_ulimits(spec):
    with pytest.raises(InvalidArgument):
        devices.ulimit(spec)


@pytest.mark.parametrize("spec", ["", "name=", "alias=x", "name=a,foo=b", "name=a,ip=x", "name=a,mac-address=zz"])
def test_no_networks(spec):
    with pytest.raises(InvalidArgument):
        endpoints.network(spec)


@pytest.mark.parametrize("spec", [":3", "sometimes", "on-failure:x"])
def test_no_restart_policies(spec):
    with pytest.raises(InvalidArgument):
        container_body.restart_policy(spec)


@pytest.mark.parametrize(("spec", "address"), [("1.2.3.4", "1.2.3.4"), ("::1", "::1"), (" 1.2.3.4 ", "1.2.3.4")])
def test_addresses(spec, address):
    assert container_body.address(spec, "--dns") == address


@pytest.mark.parametrize("spec", ["", "1.2.3", "1.2.3.4.5", "host", "::g", "01.2.3.4"])
def test_no_addresses(spec):
    with pytest.raises(InvalidArgument, match="--dns"):
        container_body.address(spec, "--dns")


def test_an_env_file_says_which_line_is_wrong(tmp_path):
    (tmp_path / "env").write_text("A=1\nB C=2\n")
    with pytest.raises(InvalidArgument, match=r"env, line 2: 'B C'"):
        container_body.environment([], [str(tmp_path / "env")])
    with pytest.raises(InvalidArgument, match="No such file"):
        container_body.environment([], [str(tmp_path / "none")])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1767360217", 1767360217),
        ("1767360217.5", 1767360217.5),
        ("2026-01-02T13:23:37Z", 1767360217),
        ("2026-01-02T13:23:37.5Z", 1767360217.5),
        ("2026-01-02T14:23:37+01:00", 1767360217),
    ],
)
def test_times(text, seconds):
    assert float(times.timestamp(text)) == pytest.approx(seconds)


def test_times_of_this_place_and_ago(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert float(times.timestamp("2026-01-02T14:23:37")) == 1767360217
        assert float(times.timestamp("2026-01-02")) == 1767308400
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert float(times.timestamp("42m")) == pytest.approx(time.time() - 42 * 60, abs=2)


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "2026-01", "T"])
def test_no_times(text):
    with pytest.raises(InvalidArgument, match="invalid time"):
        times.timestamp(text)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (None, b"\x10\x11"),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a,b", b"ab"),
        ("ctrl-@,ctrl-[,ctrl-_", b"\x00\x1b\x1f"),
        ("ctrl-A", b"\x01"),
    ],
)
def test_detach_keys(text, keys):
    assert detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ab", "a,,b", "ü"])
def test_no_detach_keys(text):
    with pytest.raises(InvalidArgument, match="invalid detach keys"):
        detach_keys(text)


@pytest.mark.parametrize(
    ("typed", "sent", "detached"),
    [
        ([b"abc"], b"abc", False),
        ([b"\x10\x11"], b"", True),
        ([b"a\x10", b"\x11b"], b"a", True),
        ([b"\x10x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x10"], b"", False),
        ([b"\x10", b"\x10", b"x"], b"\x10\x10x", False),
    ],
)
def test_detaching(typed, sent, detached):
    found = DetachKeys(b"\x10\x11")
    out = b""
    for data in typed:
        more, ended = found.feed(data)
        out += more
        if ended:
            break
    assert (out, ended) == (sent, detached)
