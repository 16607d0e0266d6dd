"""Load-balanced entries: one address and one published port for all containers of a service."""

import http.client
import json
import os
import signal
import socket
import subprocess
from collections import Counter

import pytest

from tests.api.http_client import Api, tidy
from tests.conftest import busybox_archive, new_engine, wait_until

LABELS = {"role": "web"}
SERVE = "echo $HOSTNAME >/tmp/index.html; exec httpd -f -p 80 -h /tmp"


@pytest.fixture
def api(shared_engine):
    made = Api(shared_engine)
    yield made
    tidy(made)


@pytest.fixture
def net(api):
    api.ok("POST", "/networks/create", {"Name": "balanced"})
    return "balanced"


def replica(api, name, net, labels=LABELS, **fields):
    host = {"NetworkMode": net}
    made = api.create("sh", "-c", SERVE, name=name, Hostname=name, Labels=labels, HostConfig=host, **fields)
    api.ok("POST", f"/containers/{made}/start")
    return made


def entry(api, net, name="web", **fields):
    body = {"Name": name, "Labels": LABELS, "Ports": ["127.0.0.1::80"], **fields}
    return api.ok("POST", f"/networks/{net}/lb", body)


def port_of(made):
    return int(made["Ports"][0].split(":")[1])


def asked(port, times=1, host="127.0.0.1"):
    """Who has answered, and how often."""
    found = Counter()
    for _ in range(times):
        connection = http.client.HTTPConnection(host, port, timeout=10)
        connection.request("GET", "/")
        found[connection.getresponse().read().decode().strip()] += 1
        connection.close()
    return found


def reached(port, names):
    """Wait until these answer, and no others."""

    def same():
        try:
            return set(asked(port, 30)) == names
        except OSError:  # one whose server is about to listen
            return False

    wait_until(same, what=f"answers of {names}")


def refused(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


def members(api, net, name="web"):
    (found,) = [one for one in api.ok("GET", f"/networks/{net}/lb") if one["Name"] == name]
    return {member["Name"] for member in found["Members"]}


def test_connections_are_shared_out_among_those_with_the_label(api, net, shared_engine):
    made = entry(api, net)
    port = port_of(made)
    assert port
    assert refused(port), "nobody is there"
    for number in range(4):
        replica(api, f"web-{number}", net)
    replica(api, "other", net, labels={"role": "db"})
    names = {f"web-{number}" for number in range(4)}
    reached(port, names)
    found = asked(port, 800)
    assert set(found) == names
    assert max(found.values()) / min(found.values()) < 1.6, found  # 200 each, give or take 12
    # From within, by the entry's name and address: those that are behind it, too.
    address = made["Address"]
    looked = shared_engine.run("exec", "other", "nslookup", "-type=a", "web", "127.0.0.11").stdout
    assert looked.partition("\n\n")[2].split()[-2:] == ["Address:", address]
    assert looked.count("Address:") == 2, "the server's, and one"
    script = f"for i in $(seq 60); do wget -qO- http://{address}/; done"
    assert set(shared_engine.run("exec", "web-0", "sh", "-c", script).stdout.split()) == names


def test_one_that_ends_or_is_stopped_gets_nothing_any_more(api, net):
    port = port_of(entry(api, net))
    for name in ("ant", "bee", "cat", "dog"):
        replica(api, name, net)
    reached(port, {"ant", "bee", "cat", "dog"})
    api.ok("POST", "/containers/ant/kill")
    api.ok("POST", "/containers/ant/wait")
    assert "ant" not in asked(port, 40)
    api.ok("POST", "/containers/bee/stop?t=1")
    api.ok("POST", "/containers/cat/pause")
    assert members(api, net) == {"dog"}
    assert set(asked(port, 40)) == {"dog"}
    api.ok("POST", "/containers/cat/unpause")
    api.ok("POST", "/containers/bee/start")
    api.ok("POST", f"/networks/{net}/disconnect", {"Container": "dog"})
    reached(port, {"bee", "cat"})
    for name in ("bee", "cat"):
        api.ok("DELETE", f"/containers/{name}?force=1")
    wait_until(lambda: refused(port))


def test_only_those_that_are_healthy(api, net):
    port = port_of(entry(api, net))
    check = {"Test": ["CMD", "test", "-e", "/tmp/well"], "Interval": 10**8, "Retries": 1, "StartPeriod": 0}
    replica(api, "sick", net, Healthcheck=check)
    replica(api, "well", net)
    wait_until(lambda: api.ok("GET", "/containers/sick/json")["State"]["Health"]["Status"] == "unhealthy")
    wait_until(lambda: not refused(port))
    assert set(asked(port, 30)) == {"well"}
    made = api.ok("POST", "/containers/sick/exec", {"Cmd": ["touch", "/tmp/well"]})["Id"]
    api.ok("POST", f"/exec/{made}/start", {"Detach": True})
    reached(port, {"sick", "well"})


def test_an_entry_that_a_network_is_made_with(api):
    """As a Compose file asks for it: driver_opts of a network; the service's label is Compose's own."""
    options = {"knarr.lb.web": "127.0.0.1::80, 81/udp"}
    api.ok("POST", "/networks/create", {"Name": "declared", "Options": options})
    (made,) = api.ok("GET", "/networks/declared/lb")
    assert (made["Name"], made["Labels"]) == ("web", {"com.docker.compose.service": "web"})
    assert made["Ports"][1] == "81/udp"
    replica(api, "one", "declared", labels={"com.docker.compose.service": "web"})
    wait_until(lambda: not refused(port_of(made)))
    assert set(asked(port_of(made), 3)) == {"one"}
    api.ok("DELETE", "/containers/one?force=1")
    api.ok("DELETE", "/networks/declared")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port_of(made)))


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"Name": "a b"}, 400, "invalid name of a load-balanced entry"),
        ({"Labels": {}}, 400, "needs a label"),
        ({"Ports": []}, 400, "needs a port"),
        ({"Ports": ["80:90:100:110"]}, 400, "invalid port"),
        ({"Ports": ["0"]}, 400, "is not from 1 to 65535"),
        ({"Address": "nope"}, 400, "nope"),
        ({"Ports": ["1.2.3.400:1:2"]}, 400, "is no IP address"),
        ({"Address": "10.1.2.3"}, 400, "no configured subnet contains IP address 10.1.2.3"),
        ({"Name": "taken"}, 409, "a load-balanced entry of the name taken already"),
        ({"Weight": 3}, 501, "Weight is not a field"),
    ],
)
def test_what_cannot_be_made_is_refused(api, net, fields, status, words):
    entry(api, net, "taken")
    body = {"Name": "web", "Labels": LABELS, "Ports": ["80"], **fields}
    found, answer = api.call("POST", f"/networks/{net}/lb", body)
    assert (found, words in answer["message"]) == (status, True), answer
    assert [one["Name"] for one in api.ok("GET", f"/networks/{net}/lb")] == ["taken"]


def test_a_port_that_somebody_has(api, net):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        status, answer = api.call(
            "POST", f"/networks/{net}/lb", {"Name": "web", "Labels": LABELS, "Ports": [f"127.0.0.1:{port}:80"]}
        )
        assert (status, str(port) in answer["message"]) == (409, True), answer
        status, answer = api.call(
            "POST", "/networks/create", {"Name": "other", "Options": {"knarr.lb.x": f"127.0.0.1:{port}:80"}}
        )
        assert status == 409, answer
    assert api.call("GET", "/networks/other")[0] == 404
    assert api.ok("GET", f"/networks/{net}/lb") == []
    first = entry(api, net)
    status, answer = api.call(
        "POST", f"/networks/{net}/lb", {"Name": "next", "Labels": LABELS, "Ports": [f"127.0.0.1:{port_of(first)}:80"]}
    )
    assert status == 409, answer


@pytest.mark.parametrize("name", ["bridge", "host", "none"])
def test_predefined_networks_have_none(api, name):
    status, answer = api.call("POST", f"/networks/{name}/lb", {"Name": "web", "Labels": LABELS, "Ports": ["80"]})
    assert (status, "user-defined bridge networks" in answer["message"]) == (400, True)


def test_the_command_line(api, net, shared_engine):
    replica(api, "one", net)
    address = shared_engine.run("network", "lb", "--label", "role=web", "--port", "80", net, "web").stdout.strip()
    wait_until(lambda: members(api, net) == {"one"})
    listed = shared_engine.run("network", "lb", net).stdout.splitlines()
    assert listed[0].split() == ["NAME", "ADDRESS", "PORTS", "LABELS", "MEMBERS"]
    assert listed[1].split() == ["web", address, "80/tcp", "role=web", "one"]
    assert json.loads(shared_engine.run("network", "lb", "--format", "json", net).stdout)["Name"] == "web"
    shared_engine.run("network", "lb", "--rm", net, "web")
    assert shared_engine.run("network", "lb", net).stdout.split() == listed[0].split()
    failed = shared_engine.run("network", "lb", "--rm", net, "web", check=False)
    assert failed.returncode == 1
    assert "has no load-balanced entry web" in failed.stderr
    failed = shared_engine.run("network", "lb", "-p", "80", net, check=False)
    assert failed.returncode != 0
    assert "which entry?" in failed.stderr


def test_entries_outlive_daemon_and_supervisor_and_a_flushed_table():
    engine = new_engine()
    engine.start()
    engine.run("load", "-q", "-i", busybox_archive())
    api = Api(engine)
    try:
        api.ok("POST", "/networks/create", {"Name": "balanced"})
        port = port_of(entry(api, "balanced"))
        for name in ("ant", "bee"):
            replica(api, name, "balanced")
        reached(port, {"ant", "bee"})
        engine.kill()
        assert set(asked(port, 20)) == {"ant", "bee"}
        os.kill(engine.supervisor_pid(), signal.SIGKILL)
        assert set(asked(port, 20)) == {"ant", "bee"}
        engine.start()
        api = Api(engine)
        assert members(api, "balanced") == {"ant", "bee"}
        with socket.socket() as probe, pytest.raises(OSError, match="in use"):
            probe.bind(("127.0.0.1", port))
        # Somebody flushes the rules: they are mended without anything having to start.
        subprocess.run(["nft", "delete", "table", "inet", f"knarr-{engine.number}"], check=True)
        wait_until(lambda: not refused(port))
        assert set(asked(port, 20)) == {"ant", "bee"}
        api.ok("POST", "/containers/ant/kill")
        api.ok("POST", "/containers/ant/wait")
        reached(port, {"bee"})
        replica(api, "cat", "balanced")
        reached(port, {"bee", "cat"})
    finally:
        tidy(Api(engine))
        engine.stop()


def test_an_entry_of_ipv6_alone(api):
    body = {"Name": "six", "EnableIPv4": False, "EnableIPv6": True}
    status, answer = api.call("POST", "/networks/create", {**body, "Options": {"knarr.lb.web": "127.0.0.1:1:80"}})[:2]
    assert (status, "network six has no addresses of that family" in answer["message"]) == (400, True)
    api.ok("POST", "/networks/create", body)
    for fields, words in [
        ({"Address": "10.0.0.9"}, "network six has no IPv4"),
        ({"IPv6Address": "fd99::9"}, "fd99::9"),
        ({"Ports": ["127.0.0.1:8080:80"]}, "port 127.0.0.1:8080:80/tcp of a load-balanced entry"),
    ]:
        asked = {"Name": "web", "Labels": LABELS, "Ports": ["80"], **fields}
        status, answer = api.call("POST", "/networks/six/lb", asked)[:2]
        assert (status, words in answer["message"]) == (400, True), answer
    made = entry(api, "six", Ports=["[::1]::80"])
    assert made["Address"] == ""
    assert made["Ports"][0].startswith("[::1]:")
    for name in ("one", "two"):
        replica(api, name, "six")
    port = int(made["Ports"][0].rpartition("]:")[2].partition(":")[0])
    wait_until(lambda: members(api, "six") == {"one", "two"})
    wait_until(lambda: set(asked_until(port, "::1")) == {"one", "two"})


def asked_until(port, host):
    try:
        return asked(port, 30, host)
    except OSError:  # one whose server is about to listen
        return {}


def test_an_entry_on_a_network_of_both_families(api, shared_engine):
    api.ok("POST", "/networks/create", {"Name": "both", "EnableIPv6": True})
    made = entry(api, "both", Ports=[":80"])
    replica(api, "one", "both")
    replica(api, "two", "both")
    port = int(made["Ports"][0].partition(":")[0])
    for host in ("127.0.0.1", "::1"):
        wait_until(lambda host=host: set(asked_until(port, host)) == {"one", "two"}, what=host)
    (found,) = api.ok("GET", "/networks/both/lb")
    assert found["IPv6Address"] == made["IPv6Address"] != ""
    assert all(member["IPv6Address"] for member in found["Members"])
    for address in (made["Address"], f"[{made['IPv6Address']}]"):
        script = f"for i in $(seq 30); do wget -qO- http://{address}/; done"
        assert set(shared_engine.run("exec", "one", "sh", "-c", script).stdout.split()) == {"one", "two"}
    api.ok("DELETE", "/networks/both/lb/web")
    again = entry(api, "both", Address=made["Address"], IPv6Address=made["IPv6Address"])
    assert (again["Address"], again["IPv6Address"]) == (made["Address"], made["IPv6Address"])
    listed = shared_engine.run("network", "lb", "both").stdout
    assert f"{made['Address']}, {made['IPv6Address']}" in listed
