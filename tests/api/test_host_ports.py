"""Ranges of host ports: the first that is free is taken, by as many containers as there are ports."""

import contextlib
import socket

import pytest

from tests.api.http_client import Api


@pytest.fixture
def first(shared_engine):
    """The first of three neighbouring ports of loopback, of which the first is somebody else's."""
    for number in range(21000, 29000, 7):
        with contextlib.ExitStack() as held:
            try:
                sockets = [held.enter_context(socket.socket()) for _ in range(3)]
                for offset, sock in enumerate(sockets):
                    sock.bind(("127.0.0.1", number + offset))
            except OSError:
                continue
            for sock in sockets[1:]:
                sock.close()
            yield number
            return
    raise RuntimeError("no three neighbouring ports are free")


def test_a_range_is_shared_by_containers(shared_engine, first):
    api = Api(shared_engine)
    bindings = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": f"{first}-{first + 2}"}]}
    made = []
    try:
        for name in ("ranged-1", "ranged-2", "ranged-3"):
            made.append(name)
            api.create("sleep", "100", name=name, HostConfig={"NetworkMode": "bridge", "PortBindings": bindings})
        taken = []
        for name in made[:2]:
            assert api.call("POST", f"/containers/{name}/start")[0] == 204
            shown = api.ok("GET", f"/containers/{name}/json")
            assert shown["HostConfig"]["PortBindings"] == bindings
            taken += shown["NetworkSettings"]["Ports"]["80/tcp"]
        assert taken == [{"HostIp": "127.0.0.1", "HostPort": str(first + offset)} for offset in (1, 2)]
        status, answer = api.call("POST", "/containers/ranged-3/start")
        assert status == 409
        assert f"Bind for 127.0.0.1:{first}-{first + 2}/tcp failed: all ports of the range" in answer["message"]
        api.call("POST", "/containers/ranged-1/kill")
        assert api.call("POST", "/containers/ranged-3/start")[0] == 204
    finally:
        for name in made:
            api.call("DELETE", f"/containers/{name}?force=1")
