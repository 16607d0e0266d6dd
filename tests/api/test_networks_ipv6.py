"""IPv6 on networks: alone and beside IPv4, its addresses, names, published ports, and the default bridge's."""

import contextlib
import ipaddress
import os
import signal
import socket
import subprocess
import uuid

import pytest

from knarr.config import load
from knarr.errors import InvalidArgument
from tests.api.http_client import Api, tidy
from tests.api.test_compose import Compose
from tests.api.test_networks import (
    FOREVER,
    endpoint,
    looked_up,
    network,
    run,
    says,
    subnet,
)
from tests.conftest import busybox_archive, new_engine, wait_until

SERVER = ("nc", "-ll", "-p", "80", "-e", "echo", "served")
BOTH = {"Config": [{"Subnet": "10.95.1.0/24"}, {"Subnet": "fd00:95:1::/64"}]}


@pytest.fixture
def api(shared_engine):
    made = Api(shared_engine)
    yield made
    tidy(made)


@contextlib.contextmanager
def engine_of_its_own(*flags, **environment):
    engine = new_engine()
    engine.flags += flags
    engine.extra_env |= environment
    engine.start()
    try:
        engine.run("load", "-q", "-i", busybox_archive())
        yield engine
        tidy(Api(engine))
    finally:
        engine.stop()


@pytest.fixture
def neighbour():
    """A network namespace that is another host on a wire: what runs a command in it."""
    name = f"knarrtest-{uuid.uuid4().hex[:6]}"

    def ip(*words):
        subprocess.run(["ip", *words], check=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", "knarrv6a", "type", "veth", "peer", "name", "knarrv6b", "netns", name)
        ip("-6", "addr", "add", "fd00:99::1/64", "dev", "knarrv6a", "nodad")
        ip("link", "set", "knarrv6a", "up")
        ip("-n", name, "-6", "addr", "add", "fd00:99::2/64", "dev", "knarrv6b", "nodad")
        ip("-n", name, "link", "set", "knarrv6b", "up")
        ip("-n", name, "-6", "route", "add", "default", "via", "fd00:99::1")
        yield (
            lambda *words: (
                subprocess.run(
                    ["ip", "netns", "exec", name, *words], input=b"", capture_output=True, check=False, timeout=20
                ).stdout
            )
        )
    finally:
        subprocess.run(["ip", "link", "del", "knarrv6a"], check=False, capture_output=True)
        ip("netns", "del", name)


def fetched(address, port, timeout=2.0):
    """Whether the server says its word there."""
    try:
        with socket.create_connection((address, int(port)), timeout=timeout) as connection:
            return connection.recv(100) == b"served\n"
    except OSError:
        return False


def bindings(api, container, port="80/tcp"):
    return api.ok("GET", f"/containers/{container}/json")["NetworkSettings"]["Ports"][port]


# --- networks


def test_a_network_of_both_families(api, shared_engine):
    made = network(
        api,
        "both",
        EnableIPv6=True,
        IPAM={
            "Config": [
                {"Subnet": "10.95.1.0/24"},
                {
                    "Subnet": "fd00:95:1::/64",
                    "Gateway": "fd00:95:1::ff",
                    "IPRange": "fd00:95:1::100/120",
                    "AuxiliaryAddresses": {"nas": "fd00:95:1::101"},
                },
            ]
        },
    )
    shown = api.ok("GET", "/networks/both")
    assert (shown["EnableIPv4"], shown["EnableIPv6"]) == (True, True)
    assert shown["IPAM"]["Config"] == [
        {"Subnet": "10.95.1.0/24", "Gateway": "10.95.1.1"},
        {
            "Subnet": "fd00:95:1::/64",
            "IPRange": "fd00:95:1::100/120",
            "Gateway": "fd00:95:1::ff",
            "AuxiliaryAddresses": {"nas": "fd00:95:1::101"},
        },
    ]
    first = run(api, "first", "both", Aliases=["db"])
    second = run(api, "second", "both", IPAMConfig={"IPv6Address": "fd00:95:1:0:0:0:0:abcd"})
    there = endpoint(api, first, "both")
    assert (there["GlobalIPv6Address"], there["GlobalIPv6PrefixLen"]) == ("fd00:95:1::100", 64)
    assert there["IPv6Gateway"] == "fd00:95:1::ff"
    assert endpoint(api, second, "both")["GlobalIPv6Address"] == "fd00:95:1::abcd"
    assert endpoint(api, second, "both")["IPAMConfig"] == {"IPv6Address": "fd00:95:1::abcd"}
    members = api.ok("GET", "/networks/both")["Containers"]
    assert members[first]["IPv6Address"] == "fd00:95:1::100/64"
    assert members[first]["IPv4Address"] == "10.95.1.2/24"

    assert looked_up(shared_engine, second, "db", "aaaa") == ["fd00:95:1::100"]
    assert looked_up(shared_engine, second, "db") == ["10.95.1.2"]
    reverse = ".".join(reversed(ipaddress.ip_address("fd00:95:1::100").exploded.replace(":", ""))) + ".ip6.arpa"
    assert looked_up(shared_engine, second, reverse, "ptr") == ["first.both"]
    hosts = says(shared_engine, first, "cat /etc/hosts")
    assert f"fd00:95:1::100\t{first[:12]}" in hosts
    assert f"10.95.1.2\t{first[:12]}" in hosts
    assert "1 packets received" in says(shared_engine, second, "ping -6 -c 1 -W 5 fd00:95:1::100")
    assert "default via fd00:95:1::ff dev eth0" in says(shared_engine, first, "ip -6 route")
    api.ok("DELETE", f"/containers/{first}?force=1")
    api.ok("DELETE", f"/containers/{second}?force=1")
    api.ok("DELETE", "/networks/both")
    assert not os.path.exists(f"/sys/class/net/br-{made[:12]}")


def test_a_network_of_ipv6_only(api, shared_engine):
    network(api, "six", EnableIPv4=False, EnableIPv6=True)
    network(api, "seven", EnableIPv4=False, EnableIPv6=True)
    shown = api.ok("GET", "/networks/six")
    assert (shown["EnableIPv4"], shown["EnableIPv6"]) == (False, True)
    [pool] = shown["IPAM"]["Config"]
    chosen = ipaddress.ip_network(pool["Subnet"])
    assert chosen.prefixlen == 64
    assert chosen.subnet_of(ipaddress.ip_network("fd00::/8"))
    other = ipaddress.ip_network(api.ok("GET", "/networks/seven")["IPAM"]["Config"][0]["Subnet"])
    assert not chosen.overlaps(other)
    assert chosen.supernet(new_prefix=48) == other.supernet(new_prefix=48), "the engine's own"
    container = run(api, "alone", "six")
    neighbour = run(api, "neighbour", "six")
    there = endpoint(api, container, "six")
    assert (there["IPAddress"], there["IPPrefixLen"], there["Gateway"]) == ("", 0, "")
    assert there["GlobalIPv6Address"] == str(chosen[2])
    assert looked_up(shared_engine, neighbour, "alone") == []
    assert looked_up(shared_engine, neighbour, "alone", "aaaa") == [str(chosen[2])]
    assert says(shared_engine, container, "ip -4 -o addr show eth0") == ""
    assert "1 packets received" in says(shared_engine, neighbour, "ping -6 -c 1 -W 5 alone")
    assert api.ok("GET", "/networks/six")["Containers"][container]["IPv4Address"] == ""
    api.ok("POST", f"/containers/{container}/restart?t=0")
    assert endpoint(api, container, "six")["GlobalIPv6Address"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"EnableIPv4": False}, 400, "IPv4 or IPv6 must be enabled"),
        ({"EnableIPv6": True, "IPAM": subnet("fd00:95::1/64")}, 400, "it should be fd00:95::/64"),
        ({"EnableIPv6": True, "IPAM": subnet("fd00:95::/127")}, 400, "no room"),
        ({"EnableIPv6": True, "IPAM": subnet("fe80::/64")}, 400, "not one of unicast"),
        ({"EnableIPv6": True, "IPAM": subnet("ff05::/64")}, 400, "not one of unicast"),
        ({"EnableIPv6": True, "IPAM": subnet("fd00:90::/80")}, 403, "overlaps fd00:90::/64 of network taken"),
        ({"EnableIPv6": True, "IPAM": subnet("fd00:95::/64", Gateway="fd00:96::1")}, 400, "gateway fd00:96::1"),
        ({"EnableIPv6": True, "IPAM": subnet("fd00:95::/64", Gateway="10.0.0.1")}, 400, "gateway 10.0.0.1"),
        ({"EnableIPv6": True, "IPAM": subnet("fd00:95::/64", IPRange="10.0.0.0/24")}, 400, "an IPv6 block"),
        ({"EnableIPv6": True, "IPAM": subnet("fd00:95::/64", IPRange="fd00::/16")}, 400, "not within"),
        ({"EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00:95::/64"}, {"Subnet": "fd00:96::/64"}]}}, 403,
         "doesn't support multiple subnets"),
        ({"EnableIPv6": True, "Options": {"com.docker.network.driver.mtu": "1279"}}, 400, "1280 bytes at least"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_made_is_refused_by_name(api, body, status, words):
    network(api, "taken", EnableIPv6=True, IPAM=subnet("fd00:90::/64"))
    found, answer = api.call("POST", "/networks/create", {"Name": "x", **body})
    assert (found, words in answer["message"]) == (status, True), answer
    assert api.call("GET", "/networks/x")[0] == 404


def test_a_subnet_of_a_family_that_is_off_is_told_of(api):
    answer = api.ok("POST", "/networks/create", {"Name": "x", "IPAM": subnet("fd00:95::/64")})
    assert "fd00:95::/64 is not used: IPv6 is not enabled" in answer["Warning"]
    assert api.ok("GET", "/networks/x")["EnableIPv6"] is False


def test_a_subnet_that_the_host_has_a_route_to_is_not_taken(api, neighbour):
    body = {"Name": "x", "EnableIPv6": True, "IPAM": subnet("fd00:99::/48")}
    status, answer = api.call("POST", "/networks/create", body)
    assert (status, "the host's route to fd00:99::/64" in answer["message"]) == (403, True), answer


def test_addresses_that_cannot_be_had(api):
    network(api, "both", EnableIPv6=True, IPAM=BOTH)
    network(api, "four", IPAM=subnet("10.95.2.0/24"))

    def refused(name, address):
        wanted = {"EndpointsConfig": {name: {"IPAMConfig": {"IPv6Address": address}}}}
        body = {"Image": "busybox", "HostConfig": {"NetworkMode": name}, "NetworkingConfig": wanted}
        status, answer = api.call("POST", "/containers/create", body)
        assert status == 400
        return answer["message"]

    assert "no configured subnet contains IP address fd00:96::1" in refused("both", "fd00:96::1")
    assert "no configured subnet contains IP address fd00:95:1::5" in refused("four", "fd00:95:1::5")
    assert "invalid IPv6 address: 10.95.1.9" in refused("both", "10.95.1.9")
    run(api, "has", "both", IPAMConfig={"IPv6Address": "fd00:95:1::50"})
    other = {"both": {"IPAMConfig": {"IPv6Address": "fd00:95:1::50"}}}
    made = api.create("true", HostConfig={"NetworkMode": "both"}, NetworkingConfig={"EndpointsConfig": other})
    status, answer = api.call("POST", f"/containers/{made}/start")
    assert (status, "Address already in use: fd00:95:1::50" in answer["message"]) == (409, True), answer
    # Of what was refused nothing is kept: the IPv4 address is the next one's.
    assert endpoint(api, run(api, "next", "both"), "both")["IPAddress"] in ("10.95.1.3", "10.95.1.4")


def test_join_and_leave_while_it_runs(api, shared_engine):
    network(api, "four", IPAM=subnet("10.95.2.0/24"))
    network(api, "both", EnableIPv6=True, IPAM=BOTH)
    network(api, "inside", EnableIPv6=True, Internal=True)
    container = run(api, "moving", "four")
    off = "cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6"
    assert says(shared_engine, container, off).strip() == "1"
    assert says(shared_engine, container, "ip -6 route show default") == ""
    neighbour = run(api, "neighbour", "both")
    api.ok("POST", "/networks/both/connect", {"Container": container})
    # The one with both is the way out for both, as with Docker.
    assert "via fd00:95:1::1 dev eth1" in says(shared_engine, container, "ip -6 route show default")
    assert "via 10.95.1.1 dev eth1" in says(shared_engine, container, "ip route show default")
    assert "1 packets received" in says(shared_engine, container, "ping -6 -c 1 -W 5 neighbour")
    assert looked_up(shared_engine, neighbour, "moving", "aaaa") == [
        endpoint(api, container, "both")["GlobalIPv6Address"]
    ]
    api.ok("POST", "/networks/inside/connect", {"Container": container})
    assert endpoint(api, container, "inside")["IPv6Gateway"] == ""
    assert endpoint(api, container, "inside")["GlobalIPv6Address"]
    api.ok("POST", "/networks/both/disconnect", {"Container": container})
    assert says(shared_engine, container, "ip -6 route show default") == ""
    assert "via 10.95.2.1 dev eth0" in says(shared_engine, container, "ip route show default")


def test_each_family_has_the_way_out_of_its_highest_priority(api, shared_engine):
    network(api, "four", IPAM=subnet("10.95.2.0/24"))
    network(api, "both", EnableIPv6=True, IPAM=BOTH)
    container = run(api, "two", ("four", {"GwPriority": 5}), ("both", {}))
    assert "via 10.95.2.1 dev eth0" in says(shared_engine, container, "ip route show default")
    assert "via fd00:95:1::1 dev eth1" in says(shared_engine, container, "ip -6 route show default")


# --- published ports


def test_ports_are_published_on_both_families(api, shared_engine, neighbour):
    network(api, "both", EnableIPv6=True)
    host = {"PortBindings": {"80/tcp": [{}]}}
    container = run(api, "server", "both", command=SERVER, host=host)
    four, six = bindings(api, container)
    assert (four["HostIp"], six["HostIp"]) == ("0.0.0.0", "::")
    assert four["HostPort"] == six["HostPort"]
    port = six["HostPort"]
    for address in ("127.0.0.1", "::1", "fd00:99::1"):
        wait_until(lambda address=address: fetched(address, port), what=f"the server at {address}")
    assert neighbour("busybox", "nc", "-w", "2", "fd00:99::1", port) == b"served\n"
    address = endpoint(api, container, "both")["GlobalIPv6Address"]
    assert neighbour("busybox", "nc", "-w", "1", address, "80") == b"", "not by its own address"
    summary = api.ok("GET", "/containers/json")[0]["Ports"]
    assert [(one["IP"], one["PublicPort"]) for one in summary] == [("0.0.0.0", int(port)), ("::", int(port))]
    shown = f"0.0.0.0:{port}->80/tcp, [::]:{port}->80/tcp"
    assert shared_engine.run("ps", "--format", "{{.Ports}}").stdout.strip() == shown
    assert shared_engine.docker("ps", "--format", "{{.Ports}}").stdout.strip() == shown
    assert shared_engine.run("port", "server").stdout == f"80/tcp -> 0.0.0.0:{port}\n80/tcp -> [::]:{port}\n"
    # Whoever wants the port is told who has it, of whichever family.
    for given in ("::", "0.0.0.0"):
        wanted = {"PortBindings": {"80/tcp": [{"HostIp": given, "HostPort": port}]}, "NetworkMode": "both"}
        other = api.create(*FOREVER, HostConfig=wanted)
        status, answer = api.call("POST", f"/containers/{other}/start")
        assert (status, "port is already allocated" in answer["message"]) == (409, True), answer


def test_a_port_on_the_loopback_address_is_nobodys_but_the_hosts(api, neighbour, shared_engine):
    network(api, "both", EnableIPv6=True)
    shared_engine.run("run", "-d", "--name", "server", "--network", "both", "-p", "[::1]::80", "busybox", *SERVER)
    [found] = bindings(api, "server")
    assert found["HostIp"] == "::1"
    wait_until(lambda: fetched("::1", found["HostPort"]), what="the server")
    assert not fetched("127.0.0.1", found["HostPort"])
    assert not fetched("fd00:99::1", found["HostPort"])
    assert neighbour("busybox", "nc", "-w", "1", "fd00:99::1", found["HostPort"]) == b""


def test_ports_of_a_family_that_the_container_has_not(api):
    network(api, "four", IPAM=subnet("10.95.2.0/24"))
    network(api, "six", EnableIPv4=False, EnableIPv6=True)
    four = run(api, "on-four", "four", host={"PortBindings": {"80/tcp": [{}]}})
    assert [one["HostIp"] for one in bindings(api, four)] == ["0.0.0.0"]
    six = run(api, "on-six", "six", host={"PortBindings": {"80/tcp": [{}]}})
    assert [one["HostIp"] for one in bindings(api, six)] == ["::"]
    for name, address in (("four", "::1"), ("six", "127.0.0.1")):
        host = {"NetworkMode": name, "PortBindings": {"80/tcp": [{"HostIp": address}]}}
        made = api.create("true", HostConfig=host)
        status, answer = api.call("POST", f"/containers/{made}/start")
        assert (status, f"on {address}: the container" in answer["message"]) == (400, True), answer
        assert "connect it to one with IPv" in answer["message"]


def test_ports_follow_a_running_container_onto_networks_that_lead_out(api):
    network(api, "inside", Internal=True)
    network(api, "four", IPAM=subnet("10.95.2.0/24"))
    network(api, "six", EnableIPv4=False, EnableIPv6=True)
    ports = {"PortBindings": {"80/tcp": [{}]}}
    one = run(api, "one", "inside", host=ports, command=SERVER)
    assert not bindings(api, one)
    api.ok("POST", "/networks/four/connect", {"Container": one})
    [four] = bindings(api, one)
    wait_until(lambda: fetched("127.0.0.1", four["HostPort"]), what="the server by IPv4")
    api.ok("POST", "/networks/six/connect", {"Container": one})
    assert bindings(api, one) == [four, {"HostIp": "::", "HostPort": four["HostPort"]}]
    for address in ("127.0.0.1", "::1"):
        wait_until(lambda address=address: fetched(address, four["HostPort"]), what=address)
    for name in ("six", "four"):
        api.ok("POST", f"/networks/{name}/disconnect", {"Container": one})
    assert not fetched("127.0.0.1", four["HostPort"])
    api.ok("POST", "/networks/six/connect", {"Container": one})
    wait_until(lambda: fetched("::1", four["HostPort"]), what="the server again")
    # Where a port is taken, it is said by whom, and nothing has changed.
    wanted = {"PortBindings": {"80/tcp": [{"HostPort": four["HostPort"]}]}}
    two = run(api, "two", "inside", host=wanted, command=SERVER)
    status, answer = api.call("POST", "/networks/four/connect", {"Container": two})
    assert (status, "port is already allocated" in answer["message"]) == (409, True), answer
    assert list(api.ok("GET", f"/containers/{two}/json")["NetworkSettings"]["Networks"]) == ["inside"]
    api.ok("DELETE", f"/containers/{one}?force=1")
    wait_until(lambda: api.call("POST", "/networks/four/connect", {"Container": two})[0] < 400, what="the port")
    wait_until(lambda: fetched("127.0.0.1", four["HostPort"]), what="the other server")


def test_sctp_is_published_where_the_kernel_has_it(api):
    network(api, "four", IPAM=subnet("10.95.2.0/24"))
    made = api.create(*FOREVER, HostConfig={"NetworkMode": "four", "PortBindings": {"80/sctp": [{}]}})
    status, answer = api.call("POST", f"/containers/{made}/start")
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        assert (status, "publishing sctp ports is not supported here" in answer["message"]) == (501, True), answer
    else:
        assert bindings(api, made, "80/sctp")[0]["HostIp"] == "0.0.0.0"


# --- the docker command line, Compose

PROJECT = """\
name: six
services:
  web:
    image: busybox
    command: ["nc", "-ll", "-p", "8000", "-e", "nc", "db", "5000"]
    networks: [both]
    ports: ["8000"]
    stop_grace_period: 0s
  db:
    image: busybox
    command: ["nc", "-ll", "-p", "5000", "-e", "echo", "stored"]
    networks: {both: {ipv6_address: "fd00:98::50"}}
    stop_grace_period: 0s
networks:
  both:
    enable_ipv6: true
    ipam: {config: [{subnet: 10.95.3.0/24}, {subnet: "fd00:98::/64", gateway: "fd00:98::ff"}]}
"""


def test_a_compose_project_on_a_network_of_both_families(shared_engine, tmp_path):
    (tmp_path / "compose.yaml").write_text(PROJECT)
    compose = Compose(shared_engine, tmp_path)
    try:
        compose("up", "-d", "--wait")
        port = compose("port", "web", "8000").stdout.strip().rpartition(":")[2]

        def answered(address):
            with contextlib.suppress(OSError), socket.create_connection((address, int(port)), timeout=2) as sock:
                return sock.recv(100) == b"stored\n"

        for address in ("127.0.0.1", "::1"):
            wait_until(lambda address=address: answered(address), what=f"the way through both services by {address}")
        found = compose("exec", "-T", "web", "nslookup", "-type=aaaa", "db", "127.0.0.11").stdout
        assert "Address: fd00:98::50" in found
        assert "default via fd00:98::ff" in compose("exec", "-T", "web", "ip", "-6", "route").stdout
    finally:
        compose("down", "-v", check=False)


def test_the_docker_command_line(api, shared_engine):
    docker = shared_engine.docker
    docker("network", "create", "--ipv6", "--subnet", "10.95.4.0/24", "--subnet", "fd00:94::/64",
           "--gateway", "fd00:94::ff", "--ip-range", "fd00:94::100/120", "by-docker")  # fmt: skip
    docker("network", "create", "--ipv4=false", "--ipv6", "alone")
    docker("run", "-d", "--name", "one", "--network", "by-docker", "--ip6", "fd00:94::77", "busybox", *FOREVER)
    docker("network", "connect", "alone", "one")
    template = "{{range $name, $net := .NetworkSettings.Networks}}{{$name}} {{$net.GlobalIPv6Address}} {{end}}"
    shown = docker("inspect", "-f", template, "one").stdout
    assert "by-docker fd00:94::77" in shown
    assert f"alone {endpoint(api, 'one', 'alone')['GlobalIPv6Address']}" in shown
    docker("network", "disconnect", "by-docker", "one")
    assert "default via" in says(shared_engine, "one", "ip -6 route")
    listed = shared_engine.run("network", "ls", "--format", "{{.Name}} {{.IPv6}}", "--filter", "type=custom").stdout
    assert sorted(listed.splitlines()) == ["alone true", "by-docker true"]
    # Ours takes the same.
    shared_engine.run("network", "create", "--ipv6", "--subnet", "fd00:93::/64", "--subnet", "10.95.5.0/24",
                      "--gateway", "10.95.5.9", "--aux-address", "nas=fd00:93::5", "by-knarr")  # fmt: skip
    assert api.ok("GET", "/networks/by-knarr")["IPAM"]["Config"] == [
        {"Subnet": "10.95.5.0/24", "Gateway": "10.95.5.9"},
        {"Subnet": "fd00:93::/64", "Gateway": "fd00:93::1", "AuxiliaryAddresses": {"nas": "fd00:93::5"}},
    ]
    for arguments, words in (
        (["--gateway", "10.0.0.1"], "every ip-range or gateway must have a corresponding subnet"),
        (["--subnet", "10.95.6.0/24", "--gateway", "10.0.0.1"], "no matching subnet for gateway 10.0.0.1"),
        (["--subnet", "10.95.6.0/24", "--subnet", "10.95.6.0/25"], "multiple overlapping subnet"),
        (["--subnet", "10.95.6.0/24", "--aux-address", "a=fd00::1"], "no matching subnet for aux-address fd00::1"),
    ):
        done = shared_engine.run("network", "create", *arguments, "x", check=False)
        assert done.returncode, words
        assert words in done.stderr


# --- the default bridge, defaults of the daemon


def test_the_default_bridge_has_ipv6_where_the_daemon_is_told(tmp_path):
    with engine_of_its_own("--ipv6", "--fixed-cidr-v6", "fd00:96::/64", "--ip", "127.0.0.1") as engine:
        api = Api(engine)
        first = api.create(
            *SERVER, name="first", HostConfig={"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{}]}}
        )
        api.ok("POST", f"/containers/{first}/start")
        assert endpoint(api, first, "bridge")["GlobalIPv6Address"] == "fd00:96::2"
        shown = api.ok("GET", "/networks/bridge")
        assert (shown["EnableIPv6"], shown["IPAM"]["Config"][1]["Subnet"]) == (True, "fd00:96::/64")
        assert shown["Options"]["com.docker.network.bridge.host_binding_ipv4"] == "127.0.0.1"
        assert [one["HostIp"] for one in bindings(api, first)] == ["127.0.0.1"]
        # Without it from the next start of the daemon on, once nobody uses it.
        engine.flags.clear()
        engine.restart()
        api = Api(engine)
        assert endpoint(api, first, "bridge")["GlobalIPv6Address"] == "fd00:96::2"
        api.ok("POST", f"/containers/{first}/restart?t=0")
        assert endpoint(api, first, "bridge")["GlobalIPv6Address"] == ""
        assert [one["HostIp"] for one in bindings(api, first)] == ["0.0.0.0"]
        assert api.ok("GET", "/networks/bridge")["EnableIPv6"] is False


def test_options_that_new_networks_begin_with(tmp_path):
    option = "com.docker.network.bridge.host_binding_ipv4"
    with engine_of_its_own("--default-network-opt", f"bridge={option}=127.0.0.1") as engine:
        api = Api(engine)
        network(api, "plain", EnableIPv6=True)
        network(api, "open", EnableIPv6=True, Options={option: "0.0.0.0"})
        assert api.ok("GET", "/networks/plain")["Options"] == {option: "127.0.0.1"}
        places = {}
        for name in ("plain", "open"):
            container = run(api, f"on-{name}", name, host={"PortBindings": {"80/tcp": [{}]}})
            places[name] = [one["HostIp"] for one in bindings(api, container)]
        assert places == {"plain": ["127.0.0.1"], "open": ["0.0.0.0", "::"]}
        text = engine.run("network", "create", "--ipv6", "--ipv4=false", "by-hand").stdout
        assert api.ok("GET", f"/networks/{text.strip()}")["EnableIPv4"] is False


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fixed_cidr_v6": "fd00::/64"}, "needs ipv6"),
        ({"ipv6": True, "fixed_cidr_v6": "10.0.0.0/24"}, "should be an IPv6 subnet"),
        ({"ipv6": True, "fixed_cidr_v6": "fd00::/127"}, "at most 126 bits"),
        ({"ip": "nonsense"}, "setting ip"),
        ({"address_pools": ["10.0.0.0/8", "nonsense"]}, "setting address_pools"),
    ],
    ids=str,
)
def test_settings_that_cannot_be(settings, words):
    with pytest.raises(InvalidArgument, match=words):
        load(**settings)


# --- crashes


def test_addresses_ports_and_names_outlive_daemon_and_supervisor():
    with engine_of_its_own() as engine:
        api = Api(engine)
        network(api, "kept", EnableIPv6=True)
        first = run(api, "first", "kept", command=SERVER, host={"PortBindings": {"80/tcp": [{}]}})
        second = run(api, "second", "kept")
        port = bindings(api, first)[1]["HostPort"]
        addresses = [endpoint(api, container, "kept")["GlobalIPv6Address"] for container in (first, second)]
        wait_until(lambda: fetched("::1", port), what="the server")
        engine.kill()
        os.kill(engine.supervisor_pid(), signal.SIGKILL)
        assert fetched("::1", port)
        engine.start()
        api = Api(engine)
        third = run(api, "third", "kept")
        assert endpoint(api, third, "kept")["GlobalIPv6Address"] not in addresses
        wait_until(lambda: looked_up(engine, third, "first", "aaaa") == addresses[:1], what="the name")
        assert fetched("::1", port)
        api.ok("POST", f"/containers/{first}/stop?t=0")
        assert not fetched("::1", port)
