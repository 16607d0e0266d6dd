"""Allow-lists: what a container or a network may reach beyond its own networks, by address and by name."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from tests.api.http_client import Api, tidy
from tests.conftest import busybox_archive, new_engine, wait_until

# Another machine: its addresses, the first of which is asked for names. Each has servers on ports 80 and 81.
HOST, DNS, GOOD, EVIL = "203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"
MACHINE = """
import json, socket, struct, sys, threading

zone, log = sys.argv[1:]

def words(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\\0"

def record(owner, kind, data):
    data = words(data) if kind == 5 else socket.inet_aton(data)
    return words(owner) + struct.pack("!HHIH", kind, 1, 60, len(data)) + data

def names():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", 53))
    while True:
        packet, client = server.recvfrom(2048)
        end = packet.index(b"\\0", 12)
        parts, at = [], 12
        while at < end:
            parts.append(packet[at + 1 : at + 1 + packet[at]].decode())
            at += 1 + packet[at]
        name, kind = ".".join(parts), packet[end + 2]
        with open(log, "a") as file:
            print(name, file=file)
        found = json.load(open(zone)).get(name, []) if kind == 1 else []
        answer = b"".join(record(*one) for one in found)
        header = packet[:2] + struct.pack("!HHHHH", 0x8180, 1, len(found), 0, 0)
        server.sendto(header + packet[12 : end + 5] + answer, client)

def serve(port):
    server = socket.create_server(("0.0.0.0", port))
    while True:
        client, _ = server.accept()
        client.sendall(b"here\\n")
        client.close()

for port in (80, 81):
    threading.Thread(target=serve, args=[port], daemon=True).start()
threading.Thread(target=names, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


class Machine:
    """A machine on a wire of the host's, with servers and a DNS server of the test's."""

    def __init__(self, directory):
        self.zone, self.log = directory / "zone.json", directory / "log"
        self.name = f"knarr-eg{os.getpid()}"
        self.names(**{"good.example": [("good.example", 1, GOOD)]})
        self.log.write_text("")
        ip("netns", "add", self.name)
        ip("link", "add", "knarreg0", "type", "veth", "peer", "name", "knarreg1", "netns", self.name)
        ip("addr", "add", f"{HOST}/28", "dev", "knarreg0")
        ip("link", "set", "knarreg0", "up")
        for address in (DNS, GOOD, EVIL):
            ip("-n", self.name, "addr", "add", f"{address}/28", "dev", "knarreg1")
        ip("-n", self.name, "link", "set", "knarreg1", "up")
        ip("-n", self.name, "route", "add", "default", "via", HOST)
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, sys.executable, "-c", MACHINE, self.zone, self.log],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout.readline() == b"ready\n"

    def names(self, **records):
        """What is said of names: (owner, type, data) of each, type 1 for an address and 5 for an alias."""
        self.zone.write_text(json.dumps(records))

    def asked(self):
        return set(self.log.read_text().split())

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)
        subprocess.run(["ip", "link", "del", "knarreg0"], check=False)
        ip("netns", "del", self.name)


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path)
    yield made
    made.close()


@pytest.fixture
def api(shared_engine):
    made = Api(shared_engine)
    yield made
    tidy(made)


def limited(api, name, egress, network="bridge", **host):
    annotations = {} if egress is None else {"knarr.egress": egress}
    settings = {"NetworkMode": network, "Dns": [DNS], "Annotations": annotations, **host}
    made = api.create("sleep", "1000", name=name, HostConfig=settings)
    api.ok("POST", f"/containers/{made}/start")
    return made


def reaches(engine, container, host, port=80):
    done = engine.run("exec", container, "sh", "-c", f"nc -w 3 {host} {port} </dev/null", check=False)
    return done.stdout == "here\n"


def reached_from(pid, host):
    """The same from the network namespace of a process."""
    script = f"import socket; print(socket.create_connection(('{host}', 80), 3).recv(9))"
    done = subprocess.run(
        ["nsenter", "-t", str(pid), "-n", sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    return "here" in done.stdout


def rules(engine):
    """What there is of the engine's in the kernel: (its table, its table of the bridges')."""
    found = []
    for family in ("inet", "bridge"):
        listed = subprocess.run(
            ["nft", "list", "table", family, f"knarr-{engine.number}"], capture_output=True, text=True, check=False
        )
        found.append(listed.stdout)
    return found


def test_names_and_addresses_on_a_list_are_reached_and_nothing_else(api, machine, shared_engine):
    api.ok("POST", "/networks/create", {"Name": "mesh"})
    limited(api, "free", None, "mesh")
    for name, network in (("on-default", "bridge"), ("on-mesh", "mesh")):
        limited(api, name, f"good.example:80,{DNS}:81", network)
        for host, port, open_ in [(GOOD, 80, False), (DNS, 81, True), (DNS, 80, False), (HOST, 81, False)]:
            assert reaches(shared_engine, name, host, port) == open_, (name, host, port)
        # Only our own resolver opens what a name leads to.
        assert reaches(shared_engine, name, "good.example")
        assert reaches(shared_engine, name, GOOD)
        assert not reaches(shared_engine, name, "good.example", 81)
        assert not reaches(shared_engine, name, EVIL)
        for other in ("evil.example", "secret.good.example"):
            assert not reaches(shared_engine, name, other)
        assert machine.asked() == {"good.example"}, "what is not on the list is not even asked for"
    assert reaches(shared_engine, "free", EVIL)
    shared_engine.run("exec", "-d", "free", "sh", "-c", "echo here | nc -l -p 90")
    wait_until(lambda: reaches(shared_engine, "on-mesh", "free", 90), what="its own network")
    assert json.loads(shared_engine.run("inspect", "on-mesh").stdout)[0]["HostConfig"]["Annotations"] == {
        "knarr.egress": f"good.example:80,{DNS}:81"
    }
    for name in ("on-default", "on-mesh"):
        api.ok("DELETE", f"/containers/{name}?force=1")
    wait_until(lambda: GOOD not in rules(shared_engine)[0] and not rules(shared_engine)[1], what="nothing to be left")


def test_what_a_hostile_server_says_opens_nothing(api, machine, shared_engine):
    limited(api, "one", "good.example,*.wild.example:80")
    loop = "while :; do echo here | nc -l -p 80; done"
    serving = api.create("sh", "-c", loop, name="serving", HostConfig={"NetworkMode": "bridge"})
    api.ok("POST", f"/containers/{serving}/start")
    neighbour = api.ok("GET", f"/containers/{serving}/json")["NetworkSettings"]["Networks"]["bridge"]
    assert reaches(shared_engine, "one", neighbour["IPAddress"]), "its own network, as ever"

    def serve():
        while True:
            client, _ = server.accept()
            client.sendall(b"here\n")
            client.close()

    with socket.create_server((HOST, 80)) as server:
        threading.Thread(target=serve, daemon=True).start()
        assert reaches(shared_engine, "serving", HOST), "it is there for who is not limited"
        for address in (HOST, neighbour["Gateway"], "127.0.0.1", "169.254.169.254", "10.255.255.1"):
            machine.names(**{"good.example": [("good.example", 1, address)]})
            assert not reaches(shared_engine, "one", "good.example"), address
            said = f"does not open {address}, which good.example is said to be"
            wait_until(lambda said=said: said in (shared_engine.run_root / "supervisor.log").read_text(), what=said)
    # What is said beside the answer, and of others.
    machine.names(
        **{
            "good.example": [("evil.example", 1, EVIL), ("good.example", 1, GOOD)],
            "a.wild.example": [("a.wild.example", 5, "evil.example"), ("other.example", 1, DNS)],
        }
    )
    assert reaches(shared_engine, "one", "good.example")
    shared_engine.run("exec", "one", "nslookup", "a.wild.example", check=False)
    assert not reaches(shared_engine, "one", EVIL)
    assert not reaches(shared_engine, "one", DNS)
    # An alias leads where it leads: who has the name says so.
    machine.names(**{"a.wild.example": [("a.wild.example", 5, "cdn.example"), ("cdn.example", 1, EVIL)]})
    assert reaches(shared_engine, "one", "a.wild.example")
    assert not reaches(shared_engine, "one", EVIL, 81)


def test_a_source_that_is_forged_gets_nowhere(api, machine, shared_engine):
    limited(api, "one", "none", CapAdd=["NET_ADMIN"])
    script = (
        "ip addr add {0}/16 dev eth0; ip route replace default via {1} src {0}; nc -w 3 {2} 80 </dev/null;"
        "ip addr del {0}/16 dev eth0"
    )
    own = api.ok("GET", "/containers/one/json")["NetworkSettings"]["Networks"]["bridge"]
    other = own["IPAddress"].rsplit(".", 1)[0] + ".250"
    assert not reaches(shared_engine, "one", GOOD)
    done = shared_engine.run("exec", "one", "sh", "-c", script.format(other, own["Gateway"], GOOD), check=False)
    assert "here" not in done.stdout
    # One that is not limited could: it is the list that stops it.
    limited(api, "two", None, CapAdd=["NET_ADMIN"])
    done = shared_engine.run("exec", "two", "sh", "-c", script.format(other, own["Gateway"], GOOD), check=False)
    assert "here" in done.stdout


def test_a_network_with_a_list(api, machine, shared_engine):
    shared_engine.run("network", "create", "--egress", "good.example:80", "--egress", f"{EVIL}:80-81", "closed")
    assert api.ok("GET", "/networks/closed")["Options"] == {"knarr.egress": f"good.example:80,{EVIL}:80-81"}
    limited(api, "any", None, "closed")
    assert reaches(shared_engine, "any", "good.example")
    assert reaches(shared_engine, "any", EVIL, 81)
    assert not reaches(shared_engine, "any", DNS)
    assert not reaches(shared_engine, "any", "evil.example")
    # A container's own list takes away from it, and adds nothing.
    limited(api, "own", f"{DNS},good.example:81,{EVIL}:80", "closed")
    assert reaches(shared_engine, "own", EVIL)
    for host, port in [(EVIL, 81), (DNS, 80), ("good.example", 80), ("good.example", 81)]:
        assert not reaches(shared_engine, "own", host, port), (host, port)
    shared_engine.run("run", "-d", "--name", "cli", "--egress", "none", "--network", "closed", "busybox", "sleep", "99")
    assert not reaches(shared_engine, "cli", EVIL)
    docker = shared_engine.docker
    docker("network", "create", "-o", f"knarr.egress={EVIL}:80", "by-docker")
    docker("run", "-d", "--name", "on-it", "--network", "by-docker", "busybox", "sleep", "99")
    docker("run", "-d", "--name", "noted", "--annotation", f"knarr.egress={EVIL}:81,{DNS}", "busybox", "sleep", "99")
    for name, host, port, open_ in [
        ("on-it", EVIL, 80, True),
        ("on-it", DNS, 80, False),
        ("noted", EVIL, 81, True),
        ("noted", DNS, 80, True),
        ("noted", EVIL, 80, False),
    ]:
        assert reaches(shared_engine, name, host, port) == open_, (name, host, port)


def test_a_limit_follows_its_container_and_ends_with_it(api, machine, shared_engine):
    api.ok("POST", "/networks/create", {"Name": "first"})
    api.ok("POST", "/networks/create", {"Name": "second"})
    one = limited(api, "one", f"{GOOD}:80", "first")
    api.ok("POST", "/networks/second/connect", {"Container": one})
    api.ok("POST", "/networks/first/disconnect", {"Container": one})
    assert reaches(shared_engine, "one", GOOD)
    assert not reaches(shared_engine, "one", EVIL)
    # Whoever has joined it is cut off when it ends: nobody outlives a limit.
    limited(api, "joined", None, f"container:{one}", Dns=[])
    assert reaches(shared_engine, "joined", GOOD)
    assert not reaches(shared_engine, "joined", EVIL)
    api.ok("POST", f"/containers/{one}/kill")
    api.ok("POST", f"/containers/{one}/wait")
    assert not reaches(shared_engine, "joined", EVIL)
    assert not reaches(shared_engine, "joined", GOOD)
    api.ok("POST", f"/containers/{one}/start")
    assert reaches(shared_engine, "one", GOOD)
    assert not reaches(shared_engine, "one", EVIL)


def test_limits_outlive_daemon_and_supervisor_and_a_flushed_table(machine):
    engine = new_engine()
    engine.start()
    engine.run("load", "-q", "-i", busybox_archive())
    try:
        limited(Api(engine), "one", f"good.example:80,{DNS}:81")
        limited(Api(engine), "dies", f"{EVIL}:80")
        alive = Api(engine).ok("GET", "/containers/one/json")["State"]["Pid"]
        process = Api(engine).ok("GET", "/containers/dies/json")["State"]["Pid"]
        assert reaches(engine, "one", "good.example")

        def holds():
            assert reaches(engine, "one", GOOD)
            assert reaches(engine, "one", DNS, 81)
            assert not reaches(engine, "one", EVIL)

        holds()
        engine.kill()
        os.kill(engine.supervisor_pid(), signal.SIGKILL)
        os.kill(process, signal.SIGKILL)
        assert reached_from(alive, GOOD), "in its namespace, while nobody is there"
        assert not reached_from(alive, EVIL)
        engine.start()
        holds()
        table, guard = rules(engine)
        assert EVIL not in table
        assert guard != ""
        for family in ("inet", "bridge"):
            subprocess.run(["nft", "delete", "table", family, f"knarr-{engine.number}"], check=True)
            wait_until(lambda: all(rules(engine)), what="rules that are written anew")
            holds()
        Api(engine).ok("DELETE", "/containers/one?force=1")
        wait_until(lambda: not rules(engine)[1], what="nothing to be left")
    finally:
        tidy(Api(engine))
        engine.stop()


@pytest.mark.parametrize(
    ("egress", "words"),
    [
        ("", "it is empty: for nothing at all it is 'none'"),
        ("pypi.org:0", "'pypi.org:0': ports are from 1 to 65535"),
        ("pypi.org:90-80", "the first of a range comes first"),
        ("pypi.org:http", "'pypi.org:http': expected NAME, *.NAME or CIDR"),
        ("good.example,10.0.0.1/8", "'10.0.0.1/8': 10.0.0.1/8 has host bits set"),
        ("10.0.0", "'10.0.0': expected NAME"),
        ("pypi.org:443/icmp", "icmp is not tcp, udp or sctp"),
        ("-x.org", "'-x.org': expected NAME"),
        ("*.*.org", "'*.*.org': expected NAME"),
        ("[fe80::1", "expected NAME"),
        ("none,pypi.org/443", "'pypi.org/443'"),
    ],
)
def test_a_list_that_is_none_is_refused_by_its_word(api, egress, words):
    annotations = {"Annotations": {"knarr.egress": egress}}
    status, answer = api.call("POST", "/containers/create", {"Image": "busybox", "HostConfig": annotations})[:2]
    assert (status, words in answer["message"]) == (400, True), answer
    status, answer = api.call("POST", "/networks/create", {"Name": "bad", "Options": {"knarr.egress": egress}})[:2]
    assert (status, words in answer["message"]) == (400, True), answer


@pytest.mark.parametrize("mode", ["host", "container:other"])
def test_a_network_that_is_not_its_own_cannot_be_limited(api, mode):
    api.create("true", name="other")
    host = {"Annotations": {"knarr.egress": "none"}, "NetworkMode": mode}
    status, answer = api.call("POST", "/containers/create", {"Image": "busybox", "HostConfig": host})[:2]
    assert status == 400
    assert "conflicting options: an egress list and the network mode" in answer["message"]


def test_networks_on_the_hosts_interfaces_hold_no_list(api):
    body = {"Name": "wire", "Driver": "macvlan", "Options": {"knarr.egress": "none"}}
    status, answer = api.call("POST", "/networks/create", body)[:2]
    assert status in (400, 501)
    assert "knarr.egress" in answer["message"]
    one = limited(api, "one", "none")
    ip("link", "add", "knarreg2", "type", "veth", "peer", "name", "knarreg3")
    try:
        body = {"Name": "wire", "Driver": "macvlan", "Options": {"parent": "knarreg2"}}
        api.ok("POST", "/networks/create", {**body, "IPAM": {"Config": [{"Subnet": "10.97.5.0/24"}]}})
        status, answer = api.call("POST", "/networks/wire/connect", {"Container": one})[:2]
        assert status == 400
        assert "container one has an egress list, and network wire is a macvlan network" in answer["message"]
        host = {"Annotations": {"knarr.egress": "none"}, "NetworkMode": "wire"}
        status, answer = api.call("POST", "/containers/create?name=two", {"Image": "busybox", "HostConfig": host})[:2]
        assert (status, "container two has an egress list" in answer["message"]) == (400, True)
        api.ok("DELETE", "/networks/wire")
    finally:
        ip("link", "del", "knarreg2")
