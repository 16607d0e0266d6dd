"""Bridges and published ports by the supervisor's protocol, over crashes and restarts."""

import json
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import free_port, wait_until
from tests.integration.supervisor_harness import Refused, Supervisor, kill


@pytest.fixture
def supervisor(tmp_path):
    supervisor = Supervisor(tmp_path, "--idle-exit", "1")
    launched = supervisor.launch()
    assert launched.returncode == 0, launched.stderr
    yield supervisor
    supervisor.stop()
    # What a test that failed may have left.
    subprocess.run(["ip", "link", "delete", bridge_of(supervisor)], check=False, capture_output=True)
    subprocess.run(["nft", "delete", "table", "inet", bridge_of(supervisor)], check=False, capture_output=True)


@pytest.fixture
def client(supervisor):
    return supervisor.client()


def bridge_of(supervisor) -> str:
    return f"knarr-{supervisor.engine()}"


def subnet(supervisor) -> str:
    """A /24 of this engine's own, so that tests on one host do not meet."""
    number = int(supervisor.engine(), 16)
    return f"10.{200 + number % 50}.{number // 50 % 250}"


def bridged(supervisor, args, host: int, ports=()) -> tuple[str, dict]:
    container, fields = supervisor.bundle(args)
    fields["network"] = {
        "mode": "bridge",
        "interfaces": [
            {
                "name": "eth0",
                "bridge": {"name": bridge_of(supervisor), "address": f"{subnet(supervisor)}.1/24"},
                "address": f"{subnet(supervisor)}.{host}/24",
                "mac": f"02:42:0a:00:00:{host:02x}",
                "network": "default",
            }
        ],
        "way_out": "default",
        "ports": list(ports),
    }
    return container, fields


def tcp(port: int, host_port: int = 0) -> dict:
    return {"protocol": "tcp", "host_ip": "0.0.0.0", "host_port": host_port, "container_port": port}


def fetched(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            connection.settimeout(2)
            return connection.recv(100)
    except OSError:
        return b""


SERVER = ["nc", "-ll", "-p", "80", "-e", "echo", "served"]


def test_a_container_on_a_bridge_has_its_address(supervisor, client):
    script = (
        f"ip -4 -o addr show eth0; cat /sys/class/net/eth0/address; ping -c 1 -W 5 {subnet(supervisor)}.1; ip route"
    )
    container, fields = bridged(supervisor, ["sh", "-c", script], 3)
    client.call("start", **fields)
    client.exit(container)
    output = supervisor.output(container)
    assert f"{subnet(supervisor)}.3/24" in output
    assert "02:42:0a:00:00:03" in output
    assert "1 packets received" in output
    assert f"default via {subnet(supervisor)}.1" in output


def test_published_ports_lead_in_and_are_given_back(supervisor, client):
    container, fields = bridged(supervisor, SERVER, 2, [tcp(80)])
    (port,) = client.call("start", **fields)["ports"]
    assert port["container_port"] == 80
    assert port["host_port"] > 0
    described = client.call("describe", container=container)
    there = {"name": "eth0", "address": f"{subnet(supervisor)}.2", "address6": None}
    assert described["interfaces"] == {"default": there}
    assert described["ports"] == [port]
    wait_until(lambda: fetched(port["host_port"]) == b"served\n", what="the server")
    other, taken = bridged(supervisor, SERVER, 3, [tcp(80, port["host_port"])])
    with pytest.raises(Refused, match="port is already allocated") as refused:
        client.call("start", **taken)
    assert refused.value.kind == "Conflict"
    client.call("signal", container=container, signal=9)
    client.exit(container)
    client.call("forget", container=container)
    # At once: a start with ports waits for those that are being given back.
    client.call("start", **taken)
    wait_until(lambda: fetched(port["host_port"]) == b"served\n", what="the other server")
    client.call("signal", container=other, signal=9)
    client.exit(other)
    wait_until(lambda: fetched(port["host_port"]) == b"", what="the end of the port")


def test_published_ports_outlive_the_supervisor(supervisor, client):
    container, fields = bridged(supervisor, SERVER, 2, [tcp(80)])
    (port,) = client.call("start", **fields)["ports"]
    wait_until(lambda: fetched(port["host_port"]) == b"served\n", what="the server")
    answer = client.call("hello")
    kill(answer["pid"])
    wait_until(lambda: supervisor.client(subscribe=False).call("hello")["generation"] == 2, what="another supervisor")
    assert fetched(port["host_port"]) == b"served\n"
    with pytest.raises(OSError, match="in use"), socket.socket() as taken:
        taken.bind(("0.0.0.0", port["host_port"]))
    client = supervisor.client()
    _, fields = bridged(supervisor, SERVER, 3, [tcp(80, port["host_port"])])
    with pytest.raises(Refused, match="port is already allocated"):
        client.call("start", **fields)
    client.call("signal", container=container, signal=9)
    client.exit(container)
    client.call("forget", container=container)
    client.call("start", **fields)
    wait_until(lambda: fetched(port["host_port"]) == b"served\n", what="the next server")


def test_a_taken_port_is_named_and_leaves_nothing(supervisor, client):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        number = taken.getsockname()[1]
        container, fields = bridged(supervisor, SERVER, 2, [tcp(81), tcp(80, number)])
        with pytest.raises(Refused, match=f"{number}.*port is already allocated"):
            client.call("start", **fields)
    assert not (supervisor.run_root / "containers" / container / "state.json").exists()
    client.call("start", **fields)


def test_ports_of_the_dead_are_swept(supervisor, client):
    container, fields = bridged(supervisor, SERVER, 2, [tcp(80, free_port())])
    port = client.call("start", **fields)["ports"][0]["host_port"]
    pid = client.call("hello")["containers"][0]["pid"]
    supervisor.kill_all()
    kill(pid)
    time.sleep(0.1)
    assert supervisor.launch().returncode == 0
    client = supervisor.client()
    client.exit(container)
    client.call("forget", container=container)
    _, fields = bridged(supervisor, ["sleep", "30"], 3)
    client.call("start", **fields)
    rules = subprocess.run(
        ["nft", "-j", "list", "table", "inet", bridge_of(supervisor)], capture_output=True, text=True, check=True
    ).stdout
    assert str(port) not in json.dumps(json.loads(rules))


def test_an_engine_that_ends_takes_its_networks_along(supervisor, client):
    container, fields = bridged(supervisor, ["true"], 2)
    client.call("start", **fields)
    client.exit(container)
    client.call("forget", container=container)
    assert Path(f"/sys/class/net/{bridge_of(supervisor)}").exists()
    client.close()
    wait_until(lambda: not supervisor.pids(), what="the end")
    assert not Path(f"/sys/class/net/{bridge_of(supervisor)}").exists()
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert bridge_of(supervisor) not in tables
    assert not [
        entry for entry in Path("/sys/class/net").iterdir() if entry.name.startswith(f"kv{supervisor.engine()[:5]}")
    ]


@pytest.fixture
def parent(supervisor):
    """An interface for networks to be on, with the engine's mark: as if the supervisor had made it."""
    name = f"ks{supervisor.engine()}"
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"kp{supervisor.engine()}"], check=True)
    subprocess.run(["ip", "link", "set", name, "alias", f"knarr-{supervisor.engine()}"], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)
    yield name
    subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)


def on_interface(supervisor, parent: str) -> dict:
    """The place of a container on such a network."""
    lan = {"driver": "macvlan", "parent": {"name": parent}, "mode": "bridge"}
    address = f"{subnet(supervisor)}.9/24"
    return {"name": "eth0", "lan": lan, "address": address, "mac": "02:00:00:00:00:09", "network": "lan"}


def test_what_was_made_for_networks_on_interfaces_goes_with_the_engine(supervisor, client, parent):
    peer = f"kp{supervisor.engine()}"
    client.call("make_parent", name=parent)
    client.call("remove_parent", name=peer)
    assert Path(f"/sys/class/net/{peer}").exists()
    container, fields = supervisor.bundle(["ip", "-4", "-o", "addr"])
    interface = on_interface(supervisor, parent)
    fields["network"] = {"mode": "bridge", "interfaces": [interface], "way_out": "lan"}
    client.call("start", **fields)
    client.exit(container)
    assert interface["address"] in supervisor.output(container)
    client.call("forget", container=container)
    client.close()
    wait_until(lambda: not supervisor.pids(), what="the end")
    assert not Path(f"/sys/class/net/{parent}").exists()


def test_an_address_on_an_interface_is_free_with_its_containers_exit(supervisor, client, parent):
    """The link that had it is deleted before anybody else joins: at a start, and while a container runs."""
    interface = on_interface(supervisor, parent)
    other, fields = supervisor.bundle(["sleep", "1000"])
    fields["network"] = {"mode": "none"}
    client.call("start", **fields)
    for _ in range(3):
        container, fields = supervisor.bundle(["sleep", "1000"])
        fields["network"] = {"mode": "bridge", "interfaces": [interface], "way_out": "lan"}
        client.call("start", **fields)
        client.call("signal", container=container, signal=9)
        client.exit(container)
        client.call("connect", container=other, interface=interface, way_out=None, dns=[])
        client.call("disconnect", container=other, network="lan", way_out=None)
        client.call("forget", container=container)
    client.call("signal", container=other, signal=9)
    client.exit(other)
