"""User-defined networks: made, joined and left by containers that find one another by name."""

import json
import os
import signal
import subprocess
import time
from urllib.parse import quote

import pytest

from tests.api.http_client import Api, tidy
from tests.conftest import busybox_archive, new_engine, wait_until

FOREVER = ("sleep", "1000")


@pytest.fixture
def api(shared_engine):
    made = Api(shared_engine)
    yield made
    tidy(made)


@pytest.fixture
def own():
    """An engine of the test's own, whose processes may be killed."""
    engine = new_engine()
    engine.start()
    engine.run("load", "-q", "-i", busybox_archive())
    yield engine
    tidy(Api(engine))
    engine.stop()


def network(api, name, **fields):
    return api.ok("POST", "/networks/create", {"Name": name, **fields})["Id"]


def subnet(text, **more):
    return {"Config": [{"Subnet": text, **more}]}


def filtered(path, **filters):
    return f"{path}?filters={quote(json.dumps(filters))}"


def run(api, name, *networks, command=FOREVER, host=None, **endpoint):
    """Start a container on networks: names, or (name, EndpointSettings); its ID."""
    settings = dict(one if isinstance(one, tuple) else (one, dict(endpoint)) for one in networks)
    body = {
        "HostConfig": {"NetworkMode": next(iter(settings)), **(host or {})},
        "NetworkingConfig": {"EndpointsConfig": settings},
    }
    made = api.create(*command, name=name, **body)
    api.ok("POST", f"/containers/{made}/start")
    return made


def says(engine, container, script):
    """What a shell says inside a container; its standard error too."""
    done = engine.run("exec", container, "sh", "-c", script, check=False)
    return done.stdout + done.stderr


def endpoint(api, container, name):
    return api.ok("GET", f"/containers/{container}/json")["NetworkSettings"]["Networks"][name]


def looked_up(engine, container, name, kind="a"):
    """The addresses, or names, that a container finds for a name."""
    text = says(engine, container, f"nslookup -type={kind} {name} 127.0.0.11")
    _, _, answers = text.partition("\n\n")
    found = [line.partition(": ")[2] for line in answers.splitlines() if line.startswith("Address: ")]
    return found + [line.partition("name = ")[2] for line in answers.splitlines() if "name = " in line]


# --- the noun


def test_a_network_from_its_creation_to_its_removal(api):
    made = network(
        api,
        "backend",
        IPAM=subnet(
            "10.91.0.0/24", Gateway="10.91.0.254", IPRange="10.91.0.64/26", AuxiliaryAddresses={"nas": "10.91.0.65"}
        ),
        Labels={"of": "test"},
        Options={"com.docker.network.driver.mtu": "1400"},
    )
    shown = api.ok("GET", "/networks/backend")
    assert shown["Id"] == made
    assert (shown["Driver"], shown["Scope"], shown["Internal"]) == ("bridge", "local", False)
    assert shown["IPAM"]["Config"] == [
        {
            "Subnet": "10.91.0.0/24",
            "IPRange": "10.91.0.64/26",
            "Gateway": "10.91.0.254",
            "AuxiliaryAddresses": {"nas": "10.91.0.65"},
        }
    ]
    assert (shown["Labels"], shown["Containers"]) == ({"of": "test"}, {})
    container = run(api, "on-it", "backend")
    there = endpoint(api, container, "backend")
    assert there["IPAddress"] == "10.91.0.64"
    assert there["Gateway"] == "10.91.0.254"
    assert api.ok("GET", "/networks/backend")["Containers"][container]["IPv4Address"] == "10.91.0.64/24"
    status, answer = api.call("DELETE", "/networks/backend")
    assert status == 403
    assert 'has active endpoints (name:"on-it"' in answer["message"]
    api.ok("DELETE", f"/containers/{container}?force=1")
    bridge = f"/sys/class/net/br-{made[:12]}"
    assert os.path.exists(bridge)
    api.ok("DELETE", "/networks/backend")
    assert not os.path.exists(bridge)
    assert api.call("GET", "/networks/backend")[0] == 404


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"Name": ""}, 400, "name is required"),
        ({"Name": "a b"}, 400, "invalid network name"),
        ({"Name": "bridge"}, 403, "predefined bridge network"),
        ({"Name": "taken"}, 409, "already exists"),
        ({"Name": "x", "Driver": "host"}, 403, 'only one instance of "host"'),
        ({"Name": "x", "Driver": "nosuch"}, 404, 'plugin "nosuch" not found'),
        ({"Name": "x", "Driver": "overlay"}, 501, "overlay"),
        ({"Name": "x", "EnableIPv4": False}, 400, "IPv4 or IPv6 must be enabled"),
        ({"Name": "x", "Ingress": True}, 501, "Ingress"),
        ({"Name": "x", "Scope": "swarm"}, 501, "swarm"),
        ({"Name": "x", "Options": {"nosuch": "1"}}, 501, "option nosuch"),
        ({"Name": "x", "Options": {"com.docker.network.driver.mtu": "many"}}, 400, "mtu"),
        ({"Name": "x", "Options": {"com.docker.network.bridge.enable_icc": "perhaps"}}, 400, "true or false"),
        ({"Name": "x", "IPAM": subnet("10.92.0.0/33")}, 400, "invalid CIDR"),
        ({"Name": "x", "IPAM": subnet("10.92.0.1/24")}, 400, "it should be 10.92.0.0/24"),
        ({"Name": "x", "IPAM": subnet("10.92.0.0/31")}, 400, "no room"),
        ({"Name": "x", "IPAM": subnet("10.92.0.0/24", Gateway="10.93.0.1")}, 400, "gateway 10.93.0.1"),
        ({"Name": "x", "IPAM": subnet("10.92.0.0/24", IPRange="10.93.0.0/28")}, 400, "not within"),
        ({"Name": "x", "IPAM": subnet("10.90.0.128/25")}, 403, "overlaps 10.90.0.0/24 of network taken"),
        ({"Name": "x", "IPAM": {"Config": [{"Gateway": "10.0.0.1"}]}}, 400, "needs a subnet"),
        ({"Name": "x", "IPAM": {"Driver": "dhcp"}}, 501, "dhcp"),
        ({"Name": "x", "Nosuch": 1}, 501, "Nosuch"),
        ({"Name": 7}, 400, ""),
    ],
    ids=str,
)
def test_what_cannot_be_made_is_refused_by_name(api, body, status, words):
    network(api, "taken", IPAM=subnet("10.90.0.0/24"))
    found, answer = api.call("POST", "/networks/create", body)
    assert (found, words in answer["message"]) == (status, True), answer
    assert [item["Name"] for item in api.ok("GET", filtered("/networks", type=["custom"]))] == ["taken"]


def test_a_subnet_that_the_host_has_a_route_to_is_not_taken(api):
    subprocess.run(["ip", "link", "add", "knarrtest0", "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "addr", "add", "10.94.7.1/24", "dev", "knarrtest0"], check=True)
        subprocess.run(["ip", "link", "set", "knarrtest0", "up"], check=True)
        status, answer = api.call("POST", "/networks/create", {"Name": "x", "IPAM": subnet("10.94.0.0/16")})
        assert (status, "the host's route to 10.94.7.0/24" in answer["message"]) == (403, True), answer
    finally:
        subprocess.run(["ip", "link", "del", "knarrtest0"], check=True)


@pytest.mark.parametrize("name", ["bridge", "host", "none"])
def test_predefined_networks_stay(api, name):
    status, answer = api.call("DELETE", f"/networks/{name}")
    assert (status, answer["message"]) == (403, f"{name} is a pre-defined network and cannot be removed")


def test_filters_and_prune(api):
    network(api, "one", Labels={"stage": "a"})
    network(api, "two", Labels={"stage": "b"})
    container = run(api, "user", "two")

    def names(**filters):
        return sorted(item["Name"] for item in api.ok("GET", filtered("/networks", **filters)))

    assert names(type=["custom"]) == ["one", "two"]
    assert names(type=["builtin"]) == ["bridge", "host", "none"]
    assert names(label=["stage=a"]) == ["one"]
    assert names(dangling=["true"]) == ["one"]
    assert names(name=["wo"]) == ["two"]
    assert names(driver=["null"]) == ["none"]
    pruned = api.ok("POST", filtered("/networks/prune", **{"label!": ["stage=a"]}))
    assert pruned == {"NetworksDeleted": None}
    assert api.ok("POST", "/networks/prune") == {"NetworksDeleted": ["one"]}
    api.ok("DELETE", f"/containers/{container}?force=1")
    assert api.ok("POST", "/networks/prune") == {"NetworksDeleted": ["two"]}


def test_a_container_whose_network_has_gone_says_so(api):
    network(api, "gone")
    container = run(api, "stays", "gone")
    api.ok("POST", f"/containers/{container}/stop?t=0")
    api.ok("DELETE", "/networks/gone")
    status, answer = api.call("POST", f"/containers/{container}/start")
    assert (status, "network" in answer["message"], "not found" in answer["message"]) == (404, True, True), answer


# --- addresses


def test_addresses_that_are_asked_for(api):
    network(api, "fixed", IPAM=subnet("10.91.1.0/24"))
    mac = "02:42:00:00:00:99"
    container = run(api, "fixed-one", "fixed", IPAMConfig={"IPv4Address": "10.91.1.77"}, MacAddress=mac)
    there = endpoint(api, container, "fixed")
    assert (there["IPAddress"], there["MacAddress"]) == ("10.91.1.77", mac)
    assert there["IPAMConfig"] == {"IPv4Address": "10.91.1.77"}
    body = {"HostConfig": {"NetworkMode": "fixed"}}
    wanted = {"fixed": {"IPAMConfig": {"IPv4Address": "10.91.1.77"}}}
    other = api.create("true", **body, NetworkingConfig={"EndpointsConfig": wanted})
    status, answer = api.call("POST", f"/containers/{other}/start")
    assert (status, "Address already in use" in answer["message"]) == (409, True), answer
    wanted = {"fixed": {"IPAMConfig": {"IPv4Address": "10.99.0.1"}}}
    status, answer = api.call(
        "POST", "/containers/create", {"Image": "busybox", **body, "NetworkingConfig": {"EndpointsConfig": wanted}}
    )
    assert (status, "no configured subnet contains" in answer["message"]) == (400, True), answer


def test_a_range_that_is_used_up(api):
    network(api, "small", IPAM=subnet("10.91.2.0/30"))
    run(api, "only", "small")
    other = api.create("true", HostConfig={"NetworkMode": "small"})
    status, answer = api.call("POST", f"/containers/{other}/start")
    assert (status, "no address is left in 10.91.2.0/30" in answer["message"]) == (503, True), answer


# --- names


def test_containers_find_one_another_by_name(api, shared_engine):
    network(api, "named")
    first = run(api, "first", "named", Aliases=["db", "store"])
    second = run(api, "second", "named", Aliases=["db"])
    addresses = [endpoint(api, container, "named")["IPAddress"] for container in (first, second)]
    assert endpoint(api, first, "named")["DNSNames"] == ["first", "db", "store", first[:12]]
    assert says(shared_engine, second, "cat /etc/resolv.conf").splitlines()[0] == "nameserver 127.0.0.11"
    for name in ("first", "FIRST", "store", first[:12], "first.named"):
        assert looked_up(shared_engine, second, name) == addresses[:1], name
    assert sorted(looked_up(shared_engine, second, "db")) == sorted(addresses)
    assert looked_up(shared_engine, second, "first", "aaaa") == []
    reverse = ".".join(reversed(addresses[0].split("."))) + ".in-addr.arpa"
    assert looked_up(shared_engine, second, reverse, "ptr") == ["first.named"]
    assert "1 packets received" in says(shared_engine, second, f"ping -c 1 -W 5 {addresses[0]}")
    api.ok("POST", f"/containers/{first}/rename?name=other")
    assert looked_up(shared_engine, second, "other") == addresses[:1]
    assert looked_up(shared_engine, second, "first") == []
    api.ok("POST", f"/containers/{first}/stop?t=0")
    assert looked_up(shared_engine, second, "other") == []
    assert looked_up(shared_engine, second, "db") == addresses[1:]


def test_aliases_had_the_short_id_and_the_host_name_before_1_45(api):
    network(api, "named")
    both = {"named": {"Aliases": ["db"]}}
    made = api.create(*FOREVER, name="called", Hostname="host", HostConfig={"NetworkMode": "named"}, NetworkingConfig={"EndpointsConfig": both})  # fmt: skip
    plain = api.create(*FOREVER, name="plain", HostConfig={"NetworkMode": "bridge"})

    def aliases(version, container, name):
        found = api.ok("GET", f"/{version}/containers/{container}/json")
        return found["NetworkSettings"]["Networks"][name]["Aliases"]

    for version in ("v1.40", "v1.44"):
        assert aliases(version, made, "named") == ["db", made[:12], "host"]
        assert aliases(version, plain, "bridge") is None
    assert aliases("v1.45", made, "named") == ["db"]
    assert aliases("v1.45", plain, "bridge") is None
    listed = api.ok("GET", "/v1.44/containers/json?all=1")
    networks = {line["Id"]: line["NetworkSettings"]["Networks"] for line in listed}
    assert networks[made]["named"]["Aliases"] == ["db"]


def test_links_are_names_for_one_container_alone(api, shared_engine):
    network(api, "linked")
    run(api, "db", "linked")
    run(api, "web", ("linked", {"Links": ["db:store", "late:soon"]}), host={"Links": ["/db:/web/base"]})
    address = endpoint(api, "db", "linked")["IPAddress"]
    for name in ("store", "base", "db"):
        assert looked_up(shared_engine, "web", name) == [address], name
    assert "NXDOMAIN" in says(shared_engine, "db", "nslookup -type=a store 127.0.0.11")
    assert endpoint(api, "web", "linked")["Links"] == ["db:store", "late:soon", "db:base"]
    assert api.ok("GET", "/containers/web/json")["HostConfig"]["Links"] is None
    run(api, "late", "linked")  # a link need not lead anywhere when it is made
    assert looked_up(shared_engine, "web", "soon") == [endpoint(api, "late", "linked")["IPAddress"]]
    api.ok("POST", "/containers/db/restart?t=0")
    assert looked_up(shared_engine, "web", "store") == [endpoint(api, "db", "linked")["IPAddress"]]


@pytest.mark.parametrize("link", ["", ":x", "a:b:c", "a b"])
def test_a_link_that_is_none(api, link):
    network(api, "linked")
    body = {"Image": "busybox", "HostConfig": {"NetworkMode": "linked"}}
    body["NetworkingConfig"] = {"EndpointsConfig": {"linked": {"Links": [link]}}}
    status, answer = api.call("POST", "/containers/create", body)
    assert (status, answer["message"]) == (400, f"bad format for links: {link}")


def test_networks_do_not_hear_of_one_another(api, shared_engine):
    network(api, "left")
    network(api, "right")
    here = run(api, "here", "left")
    there = run(api, "there", "right")
    assert looked_up(shared_engine, here, "there") == []
    address = endpoint(api, there, "right")["IPAddress"]
    assert "0 packets received" in says(shared_engine, here, f"ping -c 1 -W 1 {address}")


def test_an_internal_network_has_no_way_out_for_packets_and_names(api, shared_engine):
    network(api, "inside", Internal=True)
    one, other = run(api, "one", "inside"), run(api, "other", "inside")
    assert endpoint(api, one, "inside")["Gateway"] == ""
    assert "default" not in says(shared_engine, one, "ip route")
    assert looked_up(shared_engine, one, "other") == [endpoint(api, other, "inside")["IPAddress"]]
    assert "REFUSED" in says(shared_engine, one, "nslookup -type=a example.org 127.0.0.11")


def test_a_server_for_names_inside_of_a_container(api, shared_engine):
    """The engine's own answers are in nobody's way: port 53 is free for a container's server."""
    network(api, "servers")
    server = run(api, "server", "servers", command=("nc", "-ll", "-p", "53", "-e", "echo", "served"))
    client = run(api, "client", "servers")
    wait_until(lambda: "served" in says(shared_engine, client, "nc -w 2 server 53 </dev/null"), what="the server")
    assert looked_up(shared_engine, server, "client") == [endpoint(api, client, "servers")["IPAddress"]]


# --- several networks


def test_several_networks_from_the_start(api, shared_engine):
    network(api, "apple", IPAM=subnet("10.91.3.0/24"))
    network(api, "berry", IPAM=subnet("10.91.4.0/24"))
    network(api, "cherry", IPAM=subnet("10.91.5.0/24"), Internal=True)
    container = run(api, "three", ("berry", {"GwPriority": 5}), ("apple", {"Aliases": ["x"]}), ("cherry", {}))
    text = says(shared_engine, container, "ip -4 -o addr; ip route")
    for name, address in (("eth0", "10.91.4.2/24"), ("eth1", "10.91.3.2/24"), ("eth2", "10.91.5.2/24")):
        assert any(name in line and address in line for line in text.splitlines()), text
    assert "default via 10.91.4.1 dev eth0" in text
    neighbour = run(api, "neighbour", "apple")
    assert looked_up(shared_engine, neighbour, "x") == ["10.91.3.2"]
    assert looked_up(shared_engine, neighbour, "three") == ["10.91.3.2"]


def test_join_and_leave_while_it_runs(api, shared_engine):
    network(api, "apple", IPAM=subnet("10.91.3.0/24"))
    network(api, "berry", IPAM=subnet("10.91.4.0/24"))
    container = run(api, "moving", "apple")
    neighbour = run(api, "neighbour", "berry")
    settings = {"Aliases": ["guest"], "IPAMConfig": {"IPv4Address": "10.91.4.40"}}
    api.ok("POST", "/networks/berry/connect", {"Container": container, "EndpointConfig": settings})
    assert "10.91.4.40/24" in says(shared_engine, container, "ip -4 -o addr show eth1")
    assert looked_up(shared_engine, neighbour, "guest") == ["10.91.4.40"]
    assert looked_up(shared_engine, container, "neighbour") == [endpoint(api, neighbour, "berry")["IPAddress"]]
    assert "default via 10.91.3.1" in says(shared_engine, container, "ip route")
    status, answer = api.call("POST", "/networks/berry/connect", {"Container": container})
    assert (status, "already exists in network berry" in answer["message"]) == (403, True)
    api.ok("POST", "/networks/apple/disconnect", {"Container": container})
    assert "default via 10.91.4.1" in says(shared_engine, container, "ip route")
    assert "eth0" not in says(shared_engine, container, "ip link")
    assert list(api.ok("GET", f"/containers/{container}/json")["NetworkSettings"]["Networks"]) == ["berry"]
    api.ok("POST", "/networks/apple/connect", {"Container": container})
    assert "10.91.3." in says(shared_engine, container, "ip -4 -o addr show eth0")
    api.ok("POST", "/networks/berry/disconnect", {"Container": container})
    assert looked_up(shared_engine, neighbour, "guest") == []
    status, answer = api.call("POST", "/networks/berry/disconnect", {"Container": container})
    assert (status, "is not connected to network berry" in answer["message"]) == (404, True)
    api.ok("POST", f"/containers/{container}/restart?t=0")
    assert "default via 10.91.3.1" in says(shared_engine, container, "ip route")


def test_join_and_leave_while_it_does_not_run(api, shared_engine):
    network(api, "apple")
    container = api.create(*FOREVER, name="later", HostConfig={"NetworkMode": "bridge"})
    api.ok("POST", "/networks/apple/connect", {"Container": container, "EndpointConfig": {"Aliases": ["late"]}})
    api.ok("POST", "/networks/bridge/disconnect", {"Container": container})
    api.ok("POST", f"/containers/{container}/start")
    assert list(api.ok("GET", f"/containers/{container}/json")["NetworkSettings"]["Networks"]) == ["apple"]
    assert looked_up(shared_engine, container, "late") == [endpoint(api, container, "apple")["IPAddress"]]


def test_from_the_default_bridge_to_a_network_with_names(api, shared_engine):
    network(api, "apple")
    neighbour = run(api, "neighbour", "apple")
    container = api.create(*FOREVER, name="plain", HostConfig={"NetworkMode": "bridge"})
    api.ok("POST", f"/containers/{container}/start")
    api.ok("POST", "/networks/apple/connect", {"Container": container})
    assert looked_up(shared_engine, container, "neighbour") == [endpoint(api, neighbour, "apple")["IPAddress"]]
    assert "nameserver 127.0.0.11" in says(shared_engine, container, "cat /etc/resolv.conf")


@pytest.mark.parametrize(
    ("mode", "words"), [("host", "cannot connect container to host network"), ("none", "disconnect it from none first")]
)
def test_who_cannot_join(api, mode, words):
    network(api, "apple")
    container = api.create(*FOREVER, HostConfig={"NetworkMode": mode})
    status, answer = api.call("POST", "/networks/apple/connect", {"Container": container})
    assert (status, words in answer["message"]) == (400, True), answer


def test_published_ports_follow_the_way_out(api, shared_engine):
    network(api, "apple")
    network(api, "berry")
    ports = {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]}}
    server = ("nc", "-ll", "-p", "80", "-e", "echo", "served")
    container = run(api, "server", "apple", command=server, host=ports)
    port = api.ok("GET", f"/containers/{container}/json")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]

    def fetched():
        done = subprocess.run(
            ["busybox", "nc", "-w", "2", "127.0.0.1", port], input=b"", capture_output=True, check=False
        )
        return done.stdout == b"served\n"

    wait_until(fetched, what="the server")
    api.ok("POST", "/networks/berry/connect", {"Container": container})
    assert fetched()
    api.ok("POST", "/networks/apple/disconnect", {"Container": container})
    assert fetched()


def test_events_of_a_network(api):
    since = time.time()
    made = network(api, "told")
    container = run(api, "told-of", "told")
    api.ok("DELETE", f"/containers/{container}?force=1")
    api.ok("DELETE", "/networks/told")
    path = filtered("/events", type=["network"], network=[made])
    api.connection.request("GET", f"{path}&since={since:.9f}&until={time.time():.9f}")
    told = [json.loads(line) for line in api.connection.getresponse().read().splitlines()]
    assert [event["Action"] for event in told] == ["create", "connect", "disconnect", "destroy"]
    assert told[1]["Actor"]["Attributes"] == {"container": container, "name": "told", "type": "bridge"}


def test_ports_of_an_internal_network_are_discarded_with_a_word(api):
    network(api, "inside", Internal=True)
    host = {"NetworkMode": "inside", "PortBindings": {"80/tcp": [{}]}}
    made = api.ok("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": host})
    assert any("Published ports are discarded" in warning for warning in made["Warnings"])
    api.ok("POST", f"/containers/{made['Id']}/start")


def test_with_a_network_that_is_shared_come_its_names(api, shared_engine):
    network(api, "apple")
    first = run(api, "first", "apple", host={"ExtraHosts": ["far:10.1.2.3"]})
    guest = api.create(*FOREVER, name="guest", HostConfig={"NetworkMode": f"container:{first}"})
    api.ok("POST", f"/containers/{guest}/start")
    assert looked_up(shared_engine, guest, "first") == [endpoint(api, first, "apple")["IPAddress"]]
    for file in ("hosts", "resolv.conf", "hostname"):
        assert says(shared_engine, guest, f"cat /etc/{file}") == says(shared_engine, first, f"cat /etc/{file}")


# --- crashes


def test_names_and_packets_outlive_daemon_and_supervisor(own):
    api = Api(own)
    network(api, "kept")
    first, second = run(api, "first", "kept"), run(api, "second", "kept")
    addresses = [endpoint(api, container, "kept")["IPAddress"] for container in (first, second)]
    pid = api.ok("GET", f"/containers/{second}/json")["State"]["Pid"]

    def found():
        command = ["nsenter", "-t", str(pid), "-n", "busybox", "nslookup", "-type=a", "first", "127.0.0.11"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        return addresses[0] in done.stdout

    assert found()
    own.kill()
    assert found()
    os.kill(own.supervisor_pid(), signal.SIGKILL)
    wait_until(found, what="the answers")
    for process in own.supervisor_pids():  # the keeper, which holds the sockets, as well
        os.kill(process, signal.SIGKILL)
    own.start()
    wait_until(found, what="the answers of the next")
    api = Api(own)
    third = run(api, "third", "kept")
    assert endpoint(api, third, "kept")["IPAddress"] not in addresses
    wait_until(lambda: looked_up(own, third, "first") == addresses[:1], what="the name")
    api.ok("POST", "/networks/kept/disconnect", {"Container": second})
    assert looked_up(own, third, "second") == []
