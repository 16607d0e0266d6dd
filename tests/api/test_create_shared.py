"""What one container has of another: IPC and /dev/shm, processes, links; and what becomes of it when the other goes."""

import pytest

from tests.api import control_groups
from tests.api.http_client import Api, frames


@pytest.fixture
def api(shared_engine):
    made = Api(shared_engine)
    yield made
    for item in made.ok("GET", "/containers/json?all=1"):
        made.call("DELETE", f"/containers/{item['Id']}?force=1&v=1")


def run(api, *command, **host):
    """(exit code, output) of a container of its own."""
    container = api.create(*command, HostConfig=host)
    status, answer = api.call("POST", f"/containers/{container}/start")
    assert status == 204, answer
    code = api.ok("POST", f"/containers/{container}/wait")["StatusCode"]
    api.connection.request("GET", f"/containers/{container}/logs?stdout=1&stderr=1")
    return code, b"".join(piece for _, piece in frames(api.connection.getresponse().read())).decode()


def running(api, name, *command, **host):
    container = api.create(*(command or ("sleep", "100")), name=name, HostConfig=host)
    assert api.call("POST", f"/containers/{container}/start") == (204, None)
    return container


def test_ipc_is_shared_with_whoever_is_asked(api):
    donor = running(
        api, "donor", "sh", "-c", "echo note > /dev/shm/note; touch /dev/shm/ready; sleep 100", IpcMode="shareable"
    )
    code, said = run(
        api, "sh", "-c", "until test -e /dev/shm/ready; do sleep 0.05; done; cat /dev/shm/note; readlink /proc/self/ns/ipc; echo back > /dev/shm/back",
        IpcMode="container:donor",
    )  # fmt: skip
    note, namespace = said.split()
    assert (code, note) == (0, "note")
    pid = api.ok("GET", "/containers/donor/json")["State"]["Pid"]
    with open(f"/proc/{pid}/root/dev/shm/back") as file:
        assert file.read() == "back\n"
    code, said = run(api, "sh", "-c", "readlink /proc/self/ns/ipc; ls /dev/shm", NetworkMode="none")
    assert said.strip() not in (namespace, "")
    # The name is kept as an ID, and the donor must run.
    user = api.create("true", name="user", HostConfig={"IpcMode": "container:donor"})
    assert api.ok("GET", f"/containers/{user}/json")["HostConfig"]["IpcMode"] == f"container:{donor}"
    api.call("POST", "/containers/donor/kill")
    status, answer = api.call("POST", f"/containers/{user}/start")
    assert (status, answer["message"]) == (409, f"cannot join IPC namespace of a non running container: {donor}")
    api.call("DELETE", "/containers/donor?force=1")
    status, answer = api.call("POST", f"/containers/{user}/start")
    assert status == 409
    assert "No such container" in answer["message"]


def test_ipc_that_was_not_offered_is_not_shared(api):
    running(api, "closed")
    status, answer = api.call(
        "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"IpcMode": "container:closed"}}
    )
    assert status == 400
    assert "non-shareable IPC (hint: use IpcMode:shareable for the donor container)" in answer["message"]
    status, answer = api.call(
        "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"IpcMode": "container:nobody"}}
    )
    assert (status, answer["message"]) == (400, "No such container: nobody")


def test_an_older_client_makes_shareable_containers(api):
    assert (
        api.call(
            "POST", "/v1.39/containers/create?name=old", {"Image": "busybox", "HostConfig": {"NetworkMode": "none"}}
        )[0]
        == 201
    )
    assert api.ok("GET", "/containers/old/json")["HostConfig"]["IpcMode"] == "shareable"


def test_a_donor_that_swapped_its_shm_for_a_link_gives_nothing_else(api):
    """The other's root could lead a path anywhere: it is followed inside the other's mounts alone, and over no link."""
    running(
        api,
        "evil",
        "sh",
        "-c",
        "umount /dev/shm; rmdir /dev/shm; ln -s /etc /dev/shm; touch /tmp/ready; sleep 100",
        IpcMode="shareable",
        Privileged=True,
    )
    pid = api.ok("GET", "/containers/evil/json")["State"]["Pid"]
    while True:
        try:
            open(f"/proc/{pid}/root/tmp/ready").close()
            break
        except FileNotFoundError:
            continue
    victim = api.create("ls", "/dev/shm", HostConfig={"IpcMode": "container:evil"})
    status, answer = api.call("POST", f"/containers/{victim}/start")
    assert status == 400, answer
    assert "/dev/shm" in answer["message"]


def test_processes_are_shared(api):
    donor = running(api, "donor")
    _, said = run(api, "sh", "-c", "readlink /proc/self/ns/pid; ps", PidMode="container:donor")
    assert "sleep 100" in said
    status, answer = api.call(
        "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"PidMode": "container:nobody"}}
    )
    assert (status, answer["message"]) == (400, "No such container: nobody")
    late = api.create("true", HostConfig={"PidMode": f"container:{donor[:12]}"})
    api.call("POST", "/containers/donor/kill")
    status, answer = api.call("POST", f"/containers/{late}/start")
    assert status == 409
    assert "cannot join PID namespace of a non running container" in answer["message"]


def test_a_link_follows_the_other_through_restart_and_rename(api):
    running(api, "db", NetworkMode="bridge")
    web = running(api, "web", NetworkMode="bridge", Links=["db:store", "db"])
    pid = api.ok("GET", "/containers/web/json")["State"]["Pid"]

    def lines():
        with open(f"/proc/{pid}/root/etc/hosts") as file:
            return {name: line.split()[0] for line in file for name in line.split()[1:]}

    def address(name):
        return api.ok("GET", f"/containers/{name}/json")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]

    assert lines()["store"] == lines()["db"] == address("db")
    blocker = running(api, "blocker", NetworkMode="bridge")
    api.call("POST", "/containers/db/stop?t=0")
    running(api, "squatter", NetworkMode="bridge")
    assert api.call("POST", "/containers/db/start")[0] == 204
    assert lines()["store"] == address("db")
    api.call("POST", "/containers/db/rename?name=base")
    assert set(api.ok("GET", "/containers/web/json")["HostConfig"]["Links"]) == {"/base:/web/store", "/base:/web/db"}
    # A start needs what it is linked to.
    api.call("POST", "/containers/base/stop?t=0")
    api.call("POST", "/containers/web/stop?t=0")
    status, answer = api.call("POST", f"/containers/{web}/start")
    assert status == 409
    assert answer["message"].startswith("Cannot link to a non running container: /base AS /web/")
    # What is gone is no link any more.
    api.call("DELETE", "/containers/base?force=1")
    assert api.call("POST", f"/containers/{web}/start")[0] == 204
    assert api.ok("GET", "/containers/web/json")["HostConfig"]["Links"] is None
    assert blocker


def test_a_link_is_taken_away(api):
    running(api, "db", NetworkMode="bridge")
    running(api, "web", NetworkMode="bridge", Links=["db:one", "db:two"])
    pid = api.ok("GET", "/containers/web/json")["State"]["Pid"]
    assert api.call("DELETE", "/containers/web/one?link=1") == (204, None)
    assert api.ok("GET", "/containers/web/json")["HostConfig"]["Links"] == ["/db:/web/two"]
    with open(f"/proc/{pid}/root/etc/hosts") as file:
        hosts = file.read()
    assert "two" in hosts
    assert "one" not in hosts.replace("localhost", "").split()
    for path, status, words in (
        ("web/one", 404, "No such container: web/one"),
        ("web", 400, "cannot remove the default link name"),
        ("nobody/one", 404, "No such container: nobody/one"),
        ("nobody", 404, "No such container: nobody"),
    ):
        found, answer = api.call("DELETE", f"/containers/{path}?link=1")
        assert (found, words in answer["message"]) == (status, True), answer
    assert api.call("DELETE", "/containers/web/two")[0] == 404  # without link=1 it is a container's name
    assert api.ok("GET", "/containers/web/json")["State"]["Running"]


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"NetworkMode": "host", "Links": ["linked"]}, "host type networking can't be used with links"),
        ({"NetworkMode": "none", "Links": ["linked"]}, "links need the default bridge network"),
        ({"NetworkMode": "bridge", "Links": ["nobody:x"]}, "could not get container for nobody: No such container: nobody"),
        ({"NetworkMode": "bridge", "Links": ["apart"]}, "does not belong to the default network"),
        ({"NetworkMode": "bridge", "Links": [":x"]}, "bad format for links"),
        ({"NetworkMode": "bridge", "Links": ["linked:a b"]}, "bad format for links"),
        ({"NetworkMode": "bridge", "Links": ["linked:a\n1.2.3.4 b"]}, "bad format for links"),
        ({"NetworkMode": "bridge", "Links": ["linked:x", "other:x"]}, "given to two containers"),
    ],
)  # fmt: skip
def test_links_that_cannot_be(api, host, words):
    for name, mode in (("linked", "bridge"), ("other", "bridge"), ("apart", "none")):
        api.create("true", name=name, HostConfig={"NetworkMode": mode})
    status, answer = api.call("POST", "/containers/create?name=linking", {"Image": "busybox", "HostConfig": host})
    assert status == 400
    assert words in answer["message"]
    api.create("true", name="linking")  # nothing holds the name


def test_top_finds_a_container_below_another_parent(api):
    running(api, "apart", CgroupParent="/knarr-fields-other")
    assert api.ok("GET", "/containers/apart/top")["Processes"][0][-1] == "sleep 100"
    assert api.call("POST", "/containers/apart/pause")[0] == 204
    assert api.call("POST", "/containers/apart/unpause")[0] == 204
    api.call("DELETE", "/containers/apart?force=1")
    for place in control_groups.named("knarr-fields-other"):
        control_groups.remove(place)  # the container's own group is gone


def test_a_read_only_bind_of_an_older_client_is_so_at_its_top_alone(api):
    host = {"NetworkMode": "none", "Binds": ["/sys:/mnt/it:ro"]}
    script = "grep -E ' /mnt/it(/fs/cgroup(/unified)?)? ' /proc/mounts | cut -d' ' -f4 | cut -c1-2 | sort | uniq | tr '\\n' ' '"
    for version, expected in (("1.43", "ro rw "), ("1.44", "ro ")):
        body = {"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": host}
        container = api.ok("POST", f"/v{version}/containers/create", body)["Id"]
        api.call("POST", f"/containers/{container}/start")
        api.ok("POST", f"/containers/{container}/wait")
        api.connection.request("GET", f"/containers/{container}/logs?stdout=1")
        assert frames(api.connection.getresponse().read())[0][1].decode() == expected
