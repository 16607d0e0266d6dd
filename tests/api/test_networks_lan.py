"""Networks on the host's own interfaces: macvlan and ipvlan.

The engine runs in a network namespace of its own, which plays the host; its eth0 is one end of a wire. At the other end is
a machine of the LAN, another namespace.
"""

import json
import os
import signal
import subprocess
import time
from urllib.parse import quote

import pytest

from tests.api.http_client import Api, tidy
from tests.api.test_compose import Compose
from tests.api.test_networks import endpoint, filtered, looked_up, network, run, says, subnet
from tests.conftest import busybox_archive, new_engine, wait_until

MACHINE = "10.95.0.250"  # its address on the LAN, where it is the router as well
ON_LAN = subnet("10.95.0.0/24", Gateway=MACHINE)
SERVER = ("nc", "-ll", "-p", "80", "-e", "echo", "served")
ETH0 = {"parent": "eth0"}


class Lan:
    """Two namespaces and the wire between them."""

    def __init__(self):
        self.processes = [subprocess.Popen(["unshare", "-n", "sleep", "1000"]) for _ in range(2)]
        self.host, self.machine = (process.pid for process in self.processes)
        wait_until(lambda: len({os.readlink(f"/proc/{pid}/ns/net") for pid in (self.host, self.machine, "self")}) == 3)
        self.on_host("ip link set lo up")
        self.on_host(f"ip link add eth0 type veth peer name wire netns {self.machine}")
        self.on_host("ip link set eth0 up")
        for command in (f"addr add {MACHINE}/24 dev wire", "link set wire up", "link set lo up"):
            self.on_machine(f"ip {command}")

    def on_host(self, command, **options):
        return self._on(self.host, command, **options)

    def on_machine(self, command, **options):
        return self._on(self.machine, command, **options)

    @staticmethod
    def _on(pid, command, check=True):
        words = ["nsenter", "-t", str(pid), "-n", *command.split()]
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False, input="")
        assert not check or done.returncode == 0, (command, done.stderr)
        return done.stdout

    def fetches(self, address):
        return self.on_machine(f"busybox nc -w 2 {address} 80", check=False) == "served\n"

    def pings(self, address, patience=2):
        return "1 packets received" in self.on_machine(f"busybox ping -c 1 -W {patience} {address}", check=False)

    def links(self):
        """The interfaces that the host has, without those that are kept ready for bridges, which come and go."""
        names = (line.split(": ")[1].partition("@")[0] for line in self.on_host("ip -o link").splitlines())
        return sorted(name for name in names if not name.startswith("kv"))

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def lan():
    made = Lan()
    yield made
    made.close()


@pytest.fixture(scope="module")
def engine(lan):
    made = new_engine()
    made.prefix = ["nsenter", "-t", str(lan.host), "-n"]
    made.start()
    made.run("load", "-q", "-i", busybox_archive())
    yield made
    made.stop()


@pytest.fixture
def api(engine):
    made = Api(engine)
    yield made
    tidy(Api(engine))


@pytest.fixture
def wire(api):
    """A macvlan network on eth0."""
    return network(api, "wire", Driver="macvlan", Options=ETH0, IPAM=ON_LAN)


def kernel_has(kind):
    """Whether the kernel has such interfaces."""
    command = (
        f"ip link add base0 type veth; ip link add {'link base0' if kind != 'dummy' else ''} name probe type {kind}"
    )
    command += " id 5" if kind == "vlan" else ""
    return subprocess.run(["unshare", "-n", "sh", "-c", command], capture_output=True, check=False).returncode == 0


def settings_of(api, container):
    return api.ok("GET", f"/containers/{container}/json")["NetworkSettings"]


# --- on the wire


def test_a_container_is_a_machine_of_the_lan(api, engine, lan, wire):
    shown = api.ok("GET", "/networks/wire")
    assert (shown["Driver"], shown["Options"], shown["Internal"]) == ("macvlan", ETH0, False)
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.95.0.0/24", "Gateway": MACHINE}]
    before = lan.links()
    container = run(api, "server", "wire", command=SERVER, Aliases=["db"])
    there = endpoint(api, container, "wire")
    assert (there["IPAddress"], there["Gateway"], there["MacAddress"]) == ("10.95.0.1", MACHINE, "02:42:0a:5f:00:01")
    member = api.ok("GET", "/networks/wire")["Containers"][container]
    assert (member["IPv4Address"], member["MacAddress"]) == ("10.95.0.1/24", "02:42:0a:5f:00:01")
    wait_until(lambda: lan.fetches("10.95.0.1"), what="the server")
    assert "02:42:0a:5f:00:01" in lan.on_machine("ip neigh show 10.95.0.1")
    inside = says(engine, container, "ip addr show eth0; ip route")
    assert f"default via {MACHINE} dev eth0" in inside
    assert "inet6" not in inside
    assert f"PING {MACHINE}" in (text := says(engine, container, f"ping -c 1 -W 2 {MACHINE}"))
    assert "1 packets received" in text
    assert lan.links() == before, "the host has links of its own for it"
    neighbour = run(api, "neighbour", "wire")
    assert looked_up(engine, neighbour, "db") == ["10.95.0.1"]
    assert "served" in says(engine, neighbour, "nc -w 2 server 80 </dev/null")


def test_no_way_out_unless_somebody_is_named(api, engine):
    network(api, "bare", Driver="macvlan", Options=ETH0, IPAM=subnet("10.95.1.0/24"))
    network(
        api, "inside", Driver="macvlan", Options=ETH0, Internal=True, IPAM=subnet("10.95.2.0/24", Gateway="10.95.2.9")
    )
    assert api.ok("GET", "/networks/bare")["IPAM"]["Config"] == [{"Subnet": "10.95.1.0/24"}]
    for name, address in (("bare", "10.95.1.1"), ("inside", "10.95.2.1")):
        container = run(api, f"on-{name}", name)
        there = endpoint(api, container, name)
        assert (there["IPAddress"], there["Gateway"]) == (address, ""), name
        assert "default" not in says(engine, container, "ip route"), name
    assert "REFUSED" in says(engine, "on-inside", "nslookup -type=a example.org 127.0.0.11")


def test_addresses_that_are_kept_chosen_and_asked_for(api, lan):
    pool = subnet("10.95.0.0/24", Gateway=MACHINE, IPRange="10.95.0.64/28", AuxiliaryAddresses={"nas": "10.95.0.64"})
    network(api, "ranged", Driver="macvlan", Options=ETH0, IPAM=pool)
    assert endpoint(api, run(api, "chosen", "ranged"), "ranged")["IPAddress"] == "10.95.0.65"
    wanted = {"IPAMConfig": {"IPv4Address": "10.95.0.200"}, "MacAddress": "02:00:00:00:00:77"}
    for turn in range(3):  # at once after another: one that is still dying is in nobody's way
        container = run(api, f"fixed-{turn}", "ranged", **wanted)
        there = endpoint(api, container, "ranged")
        assert (there["IPAddress"], there["MacAddress"]) == ("10.95.0.200", "02:00:00:00:00:77")
        assert lan.pings("10.95.0.200")
        assert "02:00:00:00:00:77" in lan.on_machine("ip neigh show 10.95.0.200")
        if turn < 2:
            api.ok("DELETE", f"/containers/{container}?force=1")
    for _ in range(3):
        api.ok("POST", f"/containers/{container}/restart?t=0")
    assert lan.pings("10.95.0.200")
    fixed = {"EndpointsConfig": {"ranged": {"MacAddress": "02:00:00:00:00:78"}}}
    failing = api.create("/no/such", HostConfig={"NetworkMode": "ranged"}, NetworkingConfig=fixed)
    for _ in range(3):
        assert api.call("POST", f"/containers/{failing}/start")[0] == 400


@pytest.mark.parametrize("ipv4", [True, False])
def test_ipv6_beside_ipv4_or_alone(api, engine, lan, ipv4):
    lan.on_machine("ip addr add fd00:95::250/64 dev wire nodad", check=False)
    pools = [{"Subnet": "fd00:95::/64", "Gateway": "fd00:95::250", "AuxiliaryAddresses": {"nas": "fd00:95::1"}}]
    if ipv4:
        pools += ON_LAN["Config"]
    made = network(
        api, "wire6", Driver="macvlan", Options=ETH0, IPAM={"Config": pools}, EnableIPv4=ipv4, EnableIPv6=True
    )
    shown = api.ok("GET", f"/networks/{made}")
    assert (shown["EnableIPv4"], shown["EnableIPv6"]) == (ipv4, True)
    container = run(api, "six", "wire6", command=SERVER)
    found = settings_of(api, container)["Networks"]["wire6"]
    assert (bool(found["IPAddress"]), found["IPv6Gateway"]) == (ipv4, "fd00:95::250")
    assert found["GlobalIPv6Address"].startswith("fd00:95::")
    assert "default via fd00:95::250 dev eth0" in says(engine, container, "ip -6 route")
    assert ("default via 10.95.0.250 dev eth0" in says(engine, container, "ip -4 route")) == ipv4
    wait_until(lambda: lan.fetches(found["GlobalIPv6Address"]))
    assert not ipv4 or lan.fetches(found["IPAddress"])
    api.ok("POST", f"/networks/{made}/disconnect", {"Container": container})
    api.ok("POST", f"/networks/{made}/connect", {"Container": container})
    again = settings_of(api, container)["Networks"]["wire6"]["GlobalIPv6Address"]
    wait_until(lambda: lan.fetches(again))
    assert "default via fd00:95::250 dev eth0" in says(engine, container, "ip -6 route")


def test_ports_are_not_published(api, engine, lan, wire):
    host = {"NetworkMode": "wire", "PortBindings": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "0"}]}}
    made = api.ok("POST", "/containers/create", {"Image": "busybox", "Cmd": SERVER, "HostConfig": host})
    assert any("Published ports are discarded" in warning for warning in made["Warnings"])
    api.ok("POST", f"/containers/{made['Id']}/start")
    assert settings_of(api, made["Id"])["Ports"] == {}
    assert api.ok("GET", filtered("/containers/json", id=[made["Id"]]))[0]["Ports"] == []
    wait_until(lambda: lan.fetches("10.95.0.1"), what="the server at its own address")


def test_sysctls_of_an_endpoint_and_its_mtu(api, engine):
    options = {**ETH0, "com.docker.network.driver.mtu": "1400"}
    network(api, "tuned", Driver="macvlan", Options=options, IPAM=ON_LAN)
    sysctls = {"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1"}
    container = run(api, "tuned-one", "tuned", DriverOpts=sysctls)
    text = says(engine, container, "cat /proc/sys/net/ipv4/conf/eth0/log_martians /sys/class/net/eth0/mtu")
    assert text.split() == ["1", "1400"]


# --- several networks


def test_beside_a_bridge_from_the_start(api, engine, lan, wire):
    network(api, "aside")
    ports = {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]}}
    gateway = api.ok("GET", "/networks/aside")["IPAM"]["Config"][0]["Gateway"]
    container = run(api, "both", ("wire", {}), ("aside", {"GwPriority": 5}), command=SERVER, host=ports)
    assert f"default via {gateway} dev eth1" in says(engine, container, "ip route")
    port = settings_of(api, container)["Ports"]["80/tcp"][0]["HostPort"]
    fetch = f"busybox nc -w 2 127.0.0.1 {port}"
    wait_until(lambda: lan.on_host(fetch, check=False) == "served\n", what="the published port")
    assert lan.fetches("10.95.0.1")
    # The way out goes to the wire's own router, and with it the port, as its network has no ports.
    api.ok("POST", "/networks/aside/disconnect", {"Container": container})
    assert f"default via {MACHINE} dev eth0" in says(engine, container, "ip route")
    assert settings_of(api, container)["Ports"] == {}
    assert lan.on_host(fetch, check=False) == ""
    api.ok("POST", "/networks/aside/connect", {"Container": container, "EndpointConfig": {"GwPriority": 5}})
    assert f"default via {gateway} dev eth1" in says(engine, container, "ip route")
    assert lan.on_host(fetch, check=False) == "served\n"
    by_priority = run(api, "other", ("wire", {"GwPriority": 1}), ("aside", {}))
    assert f"default via {MACHINE}" in says(engine, by_priority, "ip route")


def test_join_and_leave_while_it_runs(api, engine, lan, wire):
    network(api, "aside")
    container = run(api, "moving", "aside", command=SERVER)
    neighbour = run(api, "neighbour", "wire")
    settings = {"Aliases": ["guest"], "IPAMConfig": {"IPv4Address": "10.95.0.40"}, "GwPriority": 1}
    for _ in range(3):
        api.ok("POST", "/networks/wire/connect", {"Container": container, "EndpointConfig": settings})
        inside = says(engine, container, "ip -4 -o addr show eth1; ip route")
        assert "10.95.0.40/24" in inside
        assert f"default via {MACHINE} dev eth1" in inside
        assert lan.fetches("10.95.0.40")
        assert looked_up(engine, neighbour, "guest") == ["10.95.0.40"]
        api.ok("POST", "/networks/wire/disconnect", {"Container": container})
        inside = says(engine, container, "ip -4 -o addr; ip route")
        assert "eth1" not in inside
        assert "default via" in inside
    assert not lan.pings("10.95.0.40", patience=1)
    status, answer = api.call(
        "POST", "/networks/wire/connect", {"Container": container, "EndpointConfig": {"MacAddress": "x"}}
    )
    assert (status, "MAC" in answer["message"] or "mac" in answer["message"]) == (400, True), answer


# --- what cannot be


@pytest.mark.parametrize(
    ("driver", "options", "more", "status", "words"),
    [
        ("macvlan", {"macvlan_mode": "l2"}, {}, 400, "requested macvlan mode 'l2' is not valid, 'bridge' mode is the"),
        ("ipvlan", {"ipvlan_mode": "l4"}, {}, 400, "requested ipvlan mode 'l4' is not valid, 'l2' mode is the ipvlan"),
        ("ipvlan", {"ipvlan_flag": "open"}, {}, 400, "requested ipvlan flag 'open' is not valid, 'bridge' is the"),
        ("macvlan", {"parent": "lo"}, {}, 400, "loopback interface is not a valid macvlan parent link"),
        ("ipvlan", {"parent": "lo"}, {}, 400, "loopback interface is not a valid ipvlan parent link"),
        (
            "macvlan",
            {"parent": "nosuch"},
            {},
            400,
            "invalid subinterface vlan name nosuch, example formatting is eth0.10",
        ),
        ("macvlan", {"parent": "nosuch.10"}, {}, 400, "-o parent interface was not found on the host: nosuch"),
        ("macvlan", {"parent": "eth0.1.2"}, {}, 400, "required interface name format is: name.vlan_id"),
        ("macvlan", {"parent": "eth0.x"}, {}, 400, "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)"),
        ("macvlan", {"parent": "eth0.0"}, {}, 400, "vlan id must be between 1-4094, received: 0"),
        ("ipvlan", {"parent": "eth0.4095"}, {}, 400, "vlan id must be between 1-4094, received: 4095"),
        ("macvlan", {"parent": "../eth0"}, {}, 400, "required interface name format"),
        ("macvlan", {"parent": "eth0\u0000"}, {}, 400, "invalid subinterface vlan name"),
        ("macvlan", {"nosuch": "1"}, {}, 501, "the option nosuch of a macvlan network"),
        ("macvlan", {"ipvlan_mode": "l2"}, {}, 501, "the option ipvlan_mode of a macvlan network"),
        ("macvlan", {"com.docker.network.driver.mtu": "few"}, {}, 400, "mtu"),
        ("macvlan", {**ETH0, "com.docker.network.driver.mtu": "9000"}, {}, 400, "above the 1500 bytes"),
        ("macvlan", ETH0, {"IPAM": subnet("10.95.0.128/25")}, 403, "overlaps 10.95.0.0/24 of network taken"),
        ("macvlan", ETH0, {"IPAM": subnet("10.96.0.0/24", Gateway="10.97.0.1")}, 400, "gateway 10.97.0.1"),
        (
            "macvlan",
            {**ETH0, "macvlan_mode": "passthru"},
            {},
            403,
            "cannot use mode passthru, macvlan network taken is",
        ),
        ("ipvlan", ETH0, {}, 403, "macvlan network taken is already using parent interface eth0"),
    ],
    ids=str,
)
def test_what_cannot_be_made_is_refused_by_name(api, lan, driver, options, more, status, words):
    network(api, "taken", Driver="macvlan", Options=ETH0, IPAM=ON_LAN)
    links = lan.links()
    found, answer = api.call("POST", "/networks/create", {"Name": "x", "Driver": driver, "Options": options, **more})
    assert (found, words in answer["message"]) == (status, True), answer
    assert [item["Name"] for item in api.ok("GET", filtered("/networks", type=["custom"]))] == ["taken"]
    assert lan.links() == links


def test_an_interface_in_passthru_has_one_network(api):
    network(api, "alone", Driver="macvlan", Options={**ETH0, "macvlan_mode": "passthru"}, IPAM=ON_LAN)
    status, answer = api.call("POST", "/networks/create", {"Name": "x", "Driver": "macvlan", "Options": ETH0})
    words = "macvlan network alone is already using parent interface eth0 in mode passthru"
    assert (status, words in answer["message"]) == (403, True), answer
    run(api, "first", "alone")
    second = api.create("true", HostConfig={"NetworkMode": "alone"})
    status, answer = api.call("POST", f"/containers/{second}/start")
    assert (status, "mode passthru is for one container" in answer["message"]) == (409, True), answer
    api.ok("DELETE", "/containers/first?force=1")
    api.ok("POST", f"/containers/{second}/start")


def test_a_parent_that_has_gone_is_named(api, lan):
    lan.on_host("ip link add going type veth peer name gone")
    network(api, "lost", Driver="macvlan", Options={"parent": "going"})
    lan.on_host("ip link del going")
    container = api.create("true", HostConfig={"NetworkMode": "lost"})
    status, answer = api.call("POST", f"/containers/{container}/start")
    assert (status, "parent interface going was not found" in answer["message"]) == (503, True), answer
    api.ok("DELETE", "/networks/lost")


def test_in_use_removal_prune_and_events(api, wire):
    since = time.time()
    status, answer = api.call("POST", "/networks/create", {"Name": "wire", "Driver": "macvlan", "Options": ETH0})
    assert (status, "already exists" in answer["message"]) == (409, True), answer
    container = run(api, "user", "wire")
    status, answer = api.call("DELETE", "/networks/wire")
    assert (status, 'has active endpoints (name:"user"' in answer["message"]) == (403, True), answer
    assert api.ok("POST", "/networks/prune") == {"NetworksDeleted": None}
    assert [item["Name"] for item in api.ok("GET", filtered("/networks", driver=["macvlan"]))] == ["wire"]
    api.ok("DELETE", f"/containers/{container}?force=1")
    assert api.ok("POST", "/networks/prune") == {"NetworksDeleted": ["wire"]}
    path = f"/events?since={since:.9f}&until={time.time():.9f}&filters={quote(json.dumps({'network': [wire]}))}"
    api.connection.request("GET", path)
    told = [json.loads(line) for line in api.connection.getresponse().read().splitlines()]
    assert [event["Action"] for event in told if event["Type"] == "network"] == ["connect", "disconnect", "destroy"]
    assert {event["Actor"]["Attributes"]["type"] for event in told if event["Type"] == "network"} == {"macvlan"}


# --- interfaces that are made; a kernel without such interfaces says so, and nothing is left


def create_on_made(api, lan, kind, body):
    """Whether the kernel could make the interface; the answer says so where it could not."""
    links = lan.links()
    status, answer = api.call("POST", "/networks/create", body)
    if kernel_has(kind):
        assert status == 201, answer
        return True
    assert (status, "kernel" in answer["message"]) == (501, True), answer
    assert lan.links() == links
    assert api.ok("GET", filtered("/networks", type=["custom"])) == []
    return False


@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_without_a_parent_containers_have_one_another(api, engine, lan, driver):
    body = {"Name": "island", "Driver": driver, "IPAM": subnet("10.98.0.0/24", Gateway="10.98.0.9")}
    if not create_on_made(api, lan, "dummy", body) or not kernel_has(driver):
        return
    made = api.ok("GET", "/networks/island")["Id"]
    dummy = f"{'dm' if driver == 'macvlan' else 'di'}-{made[:12]}"
    assert dummy in lan.links()
    one, other = run(api, "one", "island"), run(api, "other", "island")
    assert "1 packets received" in says(engine, one, "ping -c 1 -W 5 other")
    assert "default" not in says(engine, one, "ip route")
    for container in (one, other):
        api.ok("DELETE", f"/containers/{container}?force=1")
    api.ok("DELETE", "/networks/island")
    assert dummy not in lan.links()


def test_a_vlan_is_made_shared_and_removed(api, lan):
    body = {"Name": "tenth", "Driver": "macvlan", "Options": {"parent": "eth0.10"}, "IPAM": subnet("10.98.1.0/24")}
    if not create_on_made(api, lan, "vlan", body):
        return
    assert "vlan protocol 802.1Q id 10" in lan.on_host("ip -d link show eth0.10")
    network(api, "again", Driver="macvlan", Options={"parent": "eth0.10"}, IPAM=subnet("10.98.2.0/24"))
    lan.on_machine("ip link add link wire name wire.10 type vlan id 10")
    try:
        lan.on_machine("ip addr add 10.98.1.250/24 dev wire.10")
        lan.on_machine("ip link set wire.10 up")
        container = run(api, "server", "tenth", command=SERVER)
        wait_until(lambda: lan.fetches("10.98.1.1"), what="the server in the VLAN")
    finally:
        lan.on_machine("ip link del wire.10")
    api.ok("DELETE", f"/containers/{container}?force=1")
    api.ok("DELETE", "/networks/tenth")
    assert "eth0.10" in lan.links()
    api.ok("DELETE", "/networks/again")
    assert "eth0.10" not in lan.links()


def test_an_interface_that_was_there_stays(api, lan):
    lan.on_host("ip link add kept.10 type veth peer name kept")
    network(api, "kept", Driver="macvlan", Options={"parent": "kept.10"})
    api.ok("DELETE", "/networks/kept")
    assert "kept.10" in lan.links()
    lan.on_host("ip link del kept")


def test_ipvlan(api, engine, lan):
    """Whether the kernel has such links or not: the network can be made, and a start says what is missing."""
    modes = {"l2": f"default via {MACHINE} dev eth0", "l3": "default dev eth0", "l3s": "default dev eth0"}
    for mode, route in modes.items():
        network(api, "shared", Driver="ipvlan", Options={**ETH0, "ipvlan_mode": mode}, IPAM=ON_LAN)
        status, answer = api.call(
            "POST",
            "/containers/create",
            {
                "Image": "busybox",
                "HostConfig": {"NetworkMode": "shared"},
                "NetworkingConfig": {"EndpointsConfig": {"shared": {"MacAddress": "02:00:00:00:00:01"}}},
            },
        )
        words = "ipvlan interfaces do not support custom mac address assignment"
        assert (status, words in answer["message"]) == (400, True), answer
        status, answer = api.call("POST", "/networks/create", {"Name": "x", "Driver": "ipvlan", "Options": ETH0})
        assert (status, "is already using parent interface eth0" in answer["message"]) == (403, True), answer
        container = api.create(*SERVER, name="on-it", HostConfig={"NetworkMode": "shared"})
        status, answer = api.call("POST", f"/containers/{container}/start")
        if kernel_has("ipvlan"):
            assert status == 204, answer
            there = endpoint(api, container, "shared")
            gateway = MACHINE if mode == "l2" else ""
            assert (there["IPAddress"], there["MacAddress"], there["Gateway"]) == ("10.95.0.1", "", gateway)
            assert route in says(engine, container, "ip route")
            if mode != "l2":
                lan.on_machine("ip neigh replace 10.95.0.1 lladdr " + _mac(lan) + " dev wire")
            wait_until(lambda: lan.fetches("10.95.0.1"), what="the server")
            lan.on_machine("ip neigh flush dev wire")
        else:
            assert (status, "the network driver ipvlan" in answer["message"]) == (501, True), answer
        api.ok("DELETE", f"/containers/{container}?force=1")
        api.ok("DELETE", "/networks/shared")


def _mac(lan):
    return lan.on_host("ip -o link show eth0").partition("link/ether ")[2].split()[0]


# --- clients


def test_the_docker_command_line(api, engine, lan):
    made = engine.docker(
        "network",
        "create",
        "-d",
        "macvlan",
        "--subnet",
        "10.95.0.0/24",
        "--gateway",
        MACHINE,
        "-o",
        "parent=eth0",
        "phys",
    ).stdout.strip()
    engine.docker("run", "-d", "--name", "web", "--network", "phys", "--ip", "10.95.0.30", "busybox", *SERVER)
    wait_until(lambda: lan.fetches("10.95.0.30"), what="the server")
    (shown,) = json.loads(engine.docker("network", "inspect", "phys").stdout)
    assert (shown["Id"], [one["Name"] for one in shown["Containers"].values()]) == (made, ["web"])
    assert "macvlan" in engine.docker("network", "ls", "--filter", "driver=macvlan").stdout
    assert {"macvlan", "ipvlan"} <= set(
        json.loads(engine.docker("info", "--format", "{{json .Plugins.Network}}").stdout)
    )
    engine.docker("rm", "-f", "web")
    engine.docker("network", "rm", "phys")


def test_the_knarr_command_line(api, engine, lan):
    engine.run(
        "network", "create", "-d", "macvlan", "-o", "parent=eth0", "-o", "macvlan_mode=private", "--subnet",
        "10.95.0.0/24", "phys",
    )  # fmt: skip
    engine.run("run", "-d", "--name", "web", "--network", "phys", "--ip", "10.95.0.31", "busybox", *SERVER)
    wait_until(lambda: lan.fetches("10.95.0.31"), what="the server")
    engine.run("rm", "-f", "web")
    engine.run("network", "rm", "phys")


PROJECT = f"""\
name: wired
services:
  web:
    image: busybox
    command: {json.dumps(list(SERVER))}
    stop_grace_period: 0s
    networks:
      phys: {{ipv4_address: 10.95.0.60}}
      inner: {{}}
networks:
  inner: {{}}
  phys:
    driver: macvlan
    driver_opts: {{parent: eth0}}
    ipam: {{config: [{{subnet: 10.95.0.0/24, gateway: {MACHINE}, ip_range: 10.95.0.64/26}}]}}
"""


def test_a_compose_project(api, engine, lan, tmp_path):
    (tmp_path / "compose.yaml").write_text(PROJECT)
    compose = Compose(engine, tmp_path)
    compose("up", "-d", "--wait")
    try:
        wait_until(lambda: lan.fetches("10.95.0.60"), what="the server")
    finally:
        compose("down")
    assert api.ok("GET", filtered("/networks", type=["custom"])) == []


# --- crashes


def test_it_outlives_daemon_and_supervisor_and_leaves_nothing(api, engine, lan, wire):
    network(api, "aside")
    container = run(api, "server", "wire", command=SERVER, IPAMConfig={"IPv4Address": "10.95.0.50"})
    wait_until(lambda: lan.fetches("10.95.0.50"), what="the server")

    def again():
        """The address is free as soon as its container has gone."""
        for name in ("server", "next"):
            api.ok("DELETE", f"/containers/{name}?force=1")
            run(api, "next" if name == "server" else "server", "wire", command=SERVER,
                IPAMConfig={"IPv4Address": "10.95.0.50"})  # fmt: skip
        wait_until(lambda: lan.fetches("10.95.0.50"), what="the next server")

    os.kill(engine.supervisor_pid(), signal.SIGKILL)
    assert lan.fetches("10.95.0.50")
    wait_until(lambda: api.call("POST", "/networks/aside/connect", {"Container": container})[0] == 200)
    assert lan.fetches("10.95.0.50")
    api.ok("POST", "/networks/wire/disconnect", {"Container": container})
    assert not lan.pings("10.95.0.50", patience=1)
    fixed = {"IPAMConfig": {"IPv4Address": "10.95.0.50"}}
    api.ok("POST", "/networks/wire/connect", {"Container": container, "EndpointConfig": fixed})
    assert lan.fetches("10.95.0.50")
    again()
    engine.kill()
    for process in engine.supervisor_pids():
        os.kill(process, signal.SIGKILL)
    assert lan.pings("10.95.0.50")
    engine.start()
    api.connection.close()
    status, answer = api.call("POST", "/networks/wire/disconnect", {"Container": "server"})
    assert status == 200, answer
    api.ok("POST", "/networks/wire/connect", {"Container": "server", "EndpointConfig": fixed})
    assert lan.pings("10.95.0.50")
    # Its output has nobody any more (as the architecture says), so it is replaced.
    again()
    api.ok("DELETE", "/containers/server?force=1")
    api.ok("DELETE", "/networks/wire")
    assert not [link for link in lan.links() if link.startswith(("dm-", "di-", "eth0."))]
