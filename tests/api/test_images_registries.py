"""Images between engines and registries, by the clients that people use: docker, docker-py, skopeo, and knarr itself."""

import base64
import hashlib
import json
import os
import pty
import stat
import subprocess
import tarfile
import time
import uuid

import docker
import pytest

from tests.api.test_images_api import call
from tests.conftest import SCRIPTS, running_registry, wait_until
from tests.image_files import Layout, digest, files, simple, upload
from tests.integration.test_images_push import at_registry, index_of
from tests.security.registry_server import Answer, Server

SECRET = base64.b64encode(b"me:secret").decode()


def fresh(host=""):
    return f"{host}{'/' if host else ''}made/{uuid.uuid4().hex[:8]}"


def load(engine, archive, tmp_path):
    path = tmp_path / f"{uuid.uuid4().hex}.tar"
    path.write_bytes(archive)
    return engine.run("load", "-i", path).stdout


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A registry that asks for the user me with the password secret."""
    passwords = tmp_path_factory.mktemp("guarded") / "htpasswd"
    passwords.write_text(
        "me:$2b$04$w047bfBAdELXSi1D3/uKfetYeHXun6kgiSIXaJJEKpBI3gyuwRvMW\n"
    )  # secret, as bcrypt has it
    with running_registry(f"auth: {{htpasswd: {{realm: test, path: {passwords}}}}}\n") as running:
        yield running


@pytest.mark.parametrize("program", ["docker", "knarr"])
def test_push_and_pull(shared_engine, registry, tmp_path, program):
    run = shared_engine.docker if program == "docker" else shared_engine.run
    name = fresh(registry.host)
    archive = simple(f"{name}:1", files(a=name))
    load(shared_engine, archive, tmp_path)
    pushed = run("push", f"{name}:1").stdout
    manifest, sha = at_registry(f"{name}:1")
    assert pushed.splitlines()[0] == f"The push refers to repository [{name}]"
    layer = json.loads(manifest)["layers"][0]["digest"]
    assert f"{layer[7:19]}: Pushed" in pushed
    assert f"1: digest: {sha} size: {len(manifest)}" in pushed
    assert run("push", "-q", f"{name}:1").stdout == f"{name}:1\n"
    run("tag", f"{name}:1", f"{name}:2")
    assert f"{layer[7:19]}: Layer already exists" in run("push", "-a", name).stdout
    assert at_registry(f"{name}:2")[1] == sha
    run("rmi", f"{name}:1", f"{name}:2")
    pulled = run("pull", "-a", name).stdout
    assert pulled.rstrip().splitlines()[-1] == name
    assert f"Digest: {sha}" in pulled
    assert sorted(run("images", "--format", "{{.Tag}}", name).stdout.split()) == ["1", "2"]
    assert run("images", "--digests", "--format", "{{.Digest}}", name).stdout.split() == [sha, sha]
    for arguments, words in (
        (("push", "-a", f"{name}:1"), "tag can't be used with --all-tags/-a"),
        (("pull", "-a", f"{name}:1"), "tag can't be used with --all-tags/-a"),
        (("push", f"{name}:none"), f"tag does not exist: {name}:none"),
        (("push", "-a", fresh(registry.host)), "An image does not exist locally with the tag"),
    ):
        refused = run(*arguments, check=False)
        assert refused.returncode == 1
        assert words in refused.stderr


def test_docker_py(shared_engine, registry, tmp_path):
    name = fresh(registry.host)
    load(shared_engine, simple(f"{name}:1", files(a=name)), tmp_path)
    client = docker.DockerClient(base_url=shared_engine.host, timeout=30)
    messages = list(client.images.push(name, tag="1", stream=True, decode=True))
    sha = at_registry(f"{name}:1")[1]
    assert [message["aux"]["Digest"] for message in messages if "aux" in message] == [sha]
    assert "error" in list(client.images.push(name, tag="none", stream=True, decode=True))[-1]
    assert client.images.get_registry_data(f"{name}:1").id == sha
    client.images.remove(f"{name}:1")
    assert [image.tags for image in client.images.pull(name, all_tags=True)] == [[f"{name}:1"]]
    saved = b"".join(client.images.get(f"{name}:1").save(named=True))
    client.images.remove(f"{name}:1")
    (image,) = client.images.load(saved)
    assert image.attrs["RepoTags"] == [f"{name}:1"]
    with pytest.raises(docker.errors.APIError) as caught:
        client.login("me", "secret", registry="127.0.0.1:1")
    assert caught.value.status_code in {500, 503}
    assert client.login("me", "secret", registry=registry.host)["Status"] == "Login Succeeded"
    client.close()


def test_digests_survive_save_load_push_and_pull(shared_engine, registry, tmp_path):
    """An index with two platforms and their attestations, on all its ways."""
    layout, source, target = Layout(), fresh(registry.host), fresh(registry.host)
    entry = index_of(layout, "amd64", "arm64")
    upload(layout, registry.host, source.partition("/")[2], "1", entry)
    for platform in ("linux/amd64", "linux/arm64"):
        shared_engine.docker("pull", "--platform", platform, f"{source}:1")
    shared_engine.docker("save", "-o", tmp_path / "saved.tar", f"{source}:1")
    shared_engine.docker("rmi", f"{source}:1")
    assert call(shared_engine, "GET", f"/images/{source}@{entry['digest']}/json")[0] == 404
    assert f"Loaded image: {source}:1" in shared_engine.docker("load", "-i", tmp_path / "saved.tar").stdout
    shared_engine.docker("tag", f"{source}:1", f"{target}:1")
    assert entry["digest"] in shared_engine.docker("push", f"{target}:1").stdout
    assert at_registry(f"{target}:1") == (layout.blobs[entry["digest"]], entry["digest"])
    with tarfile.open(tmp_path / "saved.tar") as archive:
        names = {
            member.name.rpartition("/")[2]: archive.extractfile(member).read() for member in archive if member.isfile()
        }
    assert {f"sha256:{name}" for name in names if len(name) == 64} == set(layout.blobs)
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in names.items() if len(name) == 64)
    # What is shown of it, by version.
    _, shown = call(shared_engine, "GET", f"/images/{target}:1/json?manifests=1")
    assert shown["Descriptor"] == {name: entry[name] for name in ("mediaType", "digest", "size")}
    assert [one["Kind"] for one in shown["Manifests"]] == ["image", "attestation"] * 2
    assert all(one["Available"] for one in shown["Manifests"])
    assert shown["Manifests"][1]["AttestationData"] == {"For": shown["Manifests"][0]["ID"]}
    assert shown["Manifests"][2]["ImageData"]["Platform"] == {"os": "linux", "architecture": "arm64"}
    tree = shared_engine.run("images", "--tree", target).stdout
    assert "├─ linux/amd64" in tree
    assert "└─ linux/arm64" in tree
    _, statements = call(shared_engine, "GET", f"/images/{target}:1/attestations?statement=1")
    assert [one["Statement"] for one in statements] == [{"predicate": 1}]
    assert statements[0]["PredicateType"] == "https://slsa.dev/provenance/v1"
    assert call(shared_engine, "GET", f"/images/{target}:1/attestations?type=other")[1] == []
    # One platform alone.
    shared_engine.run("save", "--platform", "linux/arm64", "-o", tmp_path / "arm.tar", f"{target}:1")
    with tarfile.open(tmp_path / "arm.tar") as archive:
        (listed,) = json.load(archive.extractfile("index.json"))["manifests"]
    assert listed["digest"] == shown["Manifests"][2]["ID"]
    arm = quote_platform("arm64")
    status, removed = call(shared_engine, "DELETE", f"/images/{target}:1?platforms={arm}")
    assert (status, "--force" in removed["message"]) == (400, True)
    assert call(shared_engine, "DELETE", f"/images/{target}:1?force=1&platforms={arm}")[0] == 200
    _, left = call(shared_engine, "GET", f"/images/{target}:1/json?manifests=1")
    assert [one["Available"] for one in left["Manifests"]] == [True, True, False, False]


def quote_platform(architecture):
    return f"%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22{architecture}%22%7D"


def test_archives_of_other_tools(shared_engine, registry, tmp_path):
    """skopeo reads what we save, in both of its forms, and we what it writes."""
    name = fresh(registry.host)
    load(shared_engine, simple(f"{name}:1", files(a=name), files(b=name)), tmp_path)
    load(shared_engine, simple(f"{name}:2", files(a=name), files(c=name)), tmp_path)
    shared_engine.run("push", "-a", name)
    shared_engine.run("save", "-o", tmp_path / "both.tar", f"{name}:1", f"{name}:2")

    def skopeo(*arguments):
        return subprocess.run(["skopeo", *arguments], check=True, capture_output=True, text=True, timeout=60).stdout

    for form in (f"docker-archive:{tmp_path}/both.tar:{name}:1", f"oci-archive:{tmp_path}/both.tar:1"):
        config = json.loads(skopeo("inspect", "--config", form))
        assert len(config["rootfs"]["diff_ids"]) == 2, form
    for kind in ("docker-archive", "oci-archive"):
        out = tmp_path / f"{kind}.tar"
        again = fresh()
        skopeo("copy", "--insecure-policy", "--src-tls-verify=false", f"docker://{name}:2", f"{kind}:{out}:{again}:3")
        assert f"Loaded image: {again}:3" in shared_engine.run("load", "-i", out).stdout
    raw = skopeo("inspect", "--raw", f"oci-archive:{tmp_path}/both.tar:2").encode()
    assert digest(raw) == at_registry(f"{name}:2")[1]


def test_an_archive_in_two_forms_for_the_docker_of_before(shared_engine, tmp_path):
    """manifest.json beside index.json: whoever knows one of them finds every image and every layer by it."""
    one, two = fresh(), fresh()
    load(shared_engine, simple(f"{one}:1", files(a=one)), tmp_path)
    load(shared_engine, simple(f"{two}:1", files(a=two)), tmp_path)
    archive = tmp_path / "saved.tar"
    with archive.open("wb") as out:
        subprocess.run([SCRIPTS / "knarr", "save", one, f"{two}:1"], env=shared_engine.env, stdout=out, check=True)
    with tarfile.open(archive) as saved:
        listed = json.load(saved.extractfile("manifest.json"))
        assert [item["RepoTags"] for item in listed] == [[f"{one}:1"], [f"{two}:1"]]
        for item in listed:
            assert {saved.getmember(name).isfile() for name in (item["Config"], *item["Layers"])} == {True}
        names = [entry["annotations"]["io.containerd.image.name"] for entry in json.load(saved.extractfile("index.json"))["manifests"]]  # fmt: skip
        assert names == [f"docker.io/{one}:1", f"docker.io/{two}:1"]


def test_what_save_refuses(shared_engine, tmp_path):
    name = fresh()
    load(shared_engine, simple(f"{name}:1"), tmp_path)
    for arguments, words in (
        (("save", "none:1"), "No such image: none:1"),
        (("save", "-o", tmp_path / "none" / "x.tar", name), "does not exist"),
        (("save", "-o", tmp_path, name), "must be a regular file"),
        (("save", "-o", tmp_path / "x.tar", "none:1"), "No such image: none:1"),
        (("save", "--platform", "linux/s390x", "-o", tmp_path / "x.tar", f"{name}:1"), "does not provide the specified platform"),
    ):  # fmt: skip
        refused = shared_engine.run(*arguments, check=False)
        assert refused.returncode == 1, arguments
        assert words in refused.stderr
    assert not [path for path in tmp_path.iterdir() if "x.tar" in path.name or "knarr-save" in path.name]
    leader, follower = pty.openpty()
    try:
        refused = subprocess.run(
            [SCRIPTS / "knarr", "save", name],
            env=shared_engine.env,
            stdout=follower,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(leader)
        os.close(follower)
    assert (refused.returncode, b"refusing to save to a terminal" in refused.stderr) == (1, True)


def test_a_full_disk_while_saving_is_the_clients(shared_engine, tmp_path):
    """Nothing of it stays, and the engine goes on."""
    name = fresh()
    load(shared_engine, simple(f"{name}:1", files(a=os.urandom(2 << 20).hex())), tmp_path)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", small], check=True)
    try:
        refused = shared_engine.run("save", "-o", small / "x.tar", f"{name}:1", check=False)
        assert (refused.returncode, list(small.iterdir())) == (1, [])
        assert "No space left on device" in refused.stderr
    finally:
        subprocess.run(["umount", small], check=True)
    shared_engine.run("save", "-o", tmp_path / "x.tar", f"{name}:1")


def test_logins(shared_engine, guarded, tmp_path):
    shared_engine.extra_env["DOCKER_CONFIG"] = str(tmp_path / "config")
    try:
        _logins(shared_engine, guarded, tmp_path)
    finally:
        del shared_engine.extra_env["DOCKER_CONFIG"]


def _logins(engine, guarded, tmp_path):
    path = tmp_path / "config" / "config.json"
    name = fresh(guarded.host)
    load(engine, simple(f"{name}:1", files(a=name)), tmp_path)
    refused = engine.run("push", f"{name}:1", check=False)
    assert (refused.returncode, "push access denied" in refused.stderr) == (1, True)
    wrong = engine.run("login", "-u", "me", "--password-stdin", guarded.host, input="wrong", check=False)
    assert (wrong.returncode, path.exists()) == (1, False)
    assert "unauthorized" in wrong.stderr.lower()
    assert "wrong" not in engine.log()
    path.parent.mkdir()
    path.write_text('{"detachKeys": "ctrl-e", "auths": {"other": {"auth": "YTpi"}}}')
    done = engine.run("login", "-u", "me", "--password-stdin", guarded.host, input="secret\n")
    assert done.stdout == "Login Succeeded\n"
    assert f"stored unencrypted in '{path}'" in done.stderr
    kept = json.loads(path.read_text())
    assert kept == {"detachKeys": "ctrl-e", "auths": {"other": {"auth": "YTpi"}, guarded.host: {"auth": SECRET}}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    engine.run("push", f"{name}:1")
    engine.docker("pull", f"{name}:1")  # docker reads what knarr has written
    assert "existing credentials" in engine.run("login", guarded.host).stderr
    assert engine.run("logout", guarded.host).stdout == f"Removing login credentials for {guarded.host}\n"
    assert json.loads(path.read_text())["auths"] == {"other": {"auth": "YTpi"}}
    engine.docker("login", "-u", "me", "-p", "secret", guarded.host)
    assert json.loads(path.read_text())["auths"][guarded.host] == {"auth": SECRET}
    engine.run("push", f"{name}:1")  # and knarr what docker has
    for arguments, words in (
        (("-u", "me", "-p", "x", "--password-stdin"), "cannot specify both --password and --password-stdin"),
        (("--password-stdin",), "requires --username to be set"),
        (("-u", "me", "--password-stdin"), "password is empty"),
        (("-u", "me"), "cannot perform an interactive login from a non-TTY device"),
    ):
        refused = engine.run("login", *arguments, guarded.host, check=False, input="")
        assert (refused.returncode, words in refused.stderr) == (1, True), refused.stderr


def test_a_credential_helper_keeps_what_is_told_to_it(shared_engine, guarded, tmp_path):
    """And a login that gives an identity token keeps that, and not the password."""
    helper = tmp_path / "bin" / "docker-credential-test"
    helper.parent.mkdir()
    helper.write_text(
        f'#!/bin/sh\ncat > {tmp_path}/$1\ncase $1 in get) echo "credentials not found in native keychain"; exit 1;; esac\n'
    )
    helper.chmod(0o755)
    config = tmp_path / "config.json"
    config.write_text('{"credsStore": "test"}')
    path = f"{helper.parent}:{shared_engine.env['PATH']}"
    shared_engine.extra_env |= {"DOCKER_CONFIG": str(tmp_path), "PATH": path}
    try:
        done = shared_engine.run("login", "-u", "me", "--password-stdin", guarded.host, input="secret")
        assert "unencrypted" not in done.stderr
        expected = {"ServerURL": guarded.host, "Username": "me", "Secret": "secret"}
        assert json.loads((tmp_path / "store").read_text()) == expected
        assert json.loads(config.read_text()) == {"credsStore": "test"}
        shared_engine.run("logout", guarded.host)
        assert (tmp_path / "erase").read_text() == guarded.host
        token = b'{"token":"t","refresh_token":"identity"}'
        with Server(lambda _: Answer(200, token)) as issuer:
            challenge = {"WWW-Authenticate": f'Bearer realm="{issuer.url}",service="s"'}
            with Server(lambda asked: Answer(200 if asked.authorization else 401, b"{}", challenge)) as server:
                shared_engine.run("login", "-u", "me", "--password-stdin", server.host, input="secret")
        expected = {"ServerURL": server.host, "Username": "<token>", "Secret": "identity"}
        assert json.loads((tmp_path / "store").read_text()) == expected
    finally:
        del shared_engine.extra_env["DOCKER_CONFIG"], shared_engine.extra_env["PATH"]


def test_a_login_on_a_terminal(shared_engine, guarded, tmp_path):
    """The name is asked for, and the password is not echoed."""
    env = {**shared_engine.env, "DOCKER_CONFIG": str(tmp_path)}
    leader, follower = pty.openpty()
    command = ["setsid", "--ctty", SCRIPTS / "knarr", "login", guarded.host]
    process = subprocess.Popen(command, env=env, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    seen = b""

    def until(words):
        nonlocal seen
        end = time.monotonic() + 20
        while words not in seen and time.monotonic() < end:
            try:
                seen += os.read(leader, 4096)
            except OSError:
                break
        assert words in seen, seen

    try:
        until(b"Username: ")
        os.write(leader, b"me\n")
        until(b"Password: ")
        os.write(leader, b"secret\n")
        until(b"Login Succeeded")
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert b"secret" not in seen
    assert json.loads((tmp_path / "config.json").read_text())["auths"][guarded.host]["auth"] == SECRET


RESULTS = {
    "results": [
        {
            "name": "debian",
            "description": "a\nsystem " * 20,
            "star_count": 7,
            "is_official": True,
            "is_automated": True,
        },
        {"name": "me/debian", "description": "", "star_count": 0, "is_official": False},
    ]
}


@pytest.mark.parametrize("program", ["docker", "knarr"])
def test_search(shared_engine, program):
    run = shared_engine.docker if program == "docker" else shared_engine.run
    with Server(lambda asked: Answer(200, json.dumps(RESULTS).encode())) as server:
        lines = run("search", f"{server.host}/debian").stdout.splitlines()
        assert lines[0].split()[:4] == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]  # docker 20.10: AUTOMATED
        assert lines[1].split()[0] == "debian"
        assert " 7 [OK]" in " ".join(lines[1].split())
        assert "…" in lines[1]
        assert server.asked[-1].target == "/v1/search?q=debian&n=25"
        only = run("search", "--limit", "3", "-f", "stars=1", "--format", "{{.Name}}", f"{server.host}/a b").stdout
        assert only == "debian\n"
        assert server.asked[-1].target == "/v1/search?q=a%20b&n=3"
        assert (
            run("search", "-f", "is-official=false", "--format", "{{.Name}}", f"{server.host}/x").stdout
            == "me/debian\n"
        )
        for arguments, words in (
            (("--limit", "101"), "limit 101 is outside the range of [1, 100]"),
            (("-f", "x=1"), "invalid filter 'x'"),
            (("-f", "stars=many"), "invalid filter 'stars=many'"),
        ):
            refused = run("search", *arguments, f"{server.host}/x", check=False)
            assert (refused.returncode, words in refused.stderr) == (1, True)
    with Server(lambda asked: Answer(404)) as server:
        assert "404" in run("search", f"{server.host}/x", check=False).stderr
    assert "127.0.0.1:1" in run("search", "127.0.0.1:1/x", check=False).stderr


@pytest.mark.parametrize("body", [b"", b"[]", b'{"results": 5}', b'{"results": [1]}', b"[" * 5000])
def test_search_results_that_are_none(shared_engine, body):
    with Server(lambda asked: Answer(200, body)) as server:
        status, error = call(shared_engine, "GET", f"/images/search?term={server.host}/x")
    assert (status, "error decoding registry search results" in error["message"]) == (503, True)


def test_distribution(shared_engine, registry, tmp_path):
    name = fresh(registry.host)
    load(shared_engine, simple(f"{name}:1", files(a=name)), tmp_path)
    shared_engine.run("push", f"{name}:1")
    manifest, sha = at_registry(f"{name}:1")
    status, found = call(shared_engine, "GET", f"/distribution/{name}:1/json")
    assert (status, found["Descriptor"]["digest"], found["Descriptor"]["size"]) == (200, sha, len(manifest))
    assert found["Platforms"] == [{"architecture": "amd64", "os": "linux"}]
    assert call(shared_engine, "GET", f"/distribution/{name}:none/json")[0] == 404
    assert call(shared_engine, "GET", "/distribution/UPPER/json")[0] == 400


def test_a_daemon_that_is_killed_while_it_pushes(engine, tmp_path):
    """Nothing on our side is half: the same image is there, and the push can be made again."""
    stored, gone = {}, []

    def answer(asked):
        if asked.method == "HEAD":
            return Answer(404)
        if asked.method == "POST":
            return Answer(202, b"", {"Location": "/v2/made/x/blobs/uploads/1"})
        if "/manifests/" in asked.path:
            stored[asked.path] = asked.body
            return Answer(201)
        if not gone:
            return lambda talk: talk.stall()
        stored[asked.target] = asked.body
        return Answer(201)

    with Server(answer) as server:
        name = f"{server.host}/made/x:1"
        load(engine, simple(name, files(a="1")), tmp_path)
        before = (engine.run("images", "--digests", "--no-trunc").stdout, sorted(engine.data_root.rglob("blobs/**/*")))
        client = subprocess.Popen(
            ["docker", "push", name], env=engine.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        wait_until(lambda: "PUT" in [asked.method for asked in server.asked], what="the upload")
        engine.kill()
        assert client.wait(30) != 0
        gone.append(True)
        engine.start()
        assert (
            engine.run("images", "--digests", "--no-trunc").stdout,
            sorted(engine.data_root.rglob("blobs/**/*")),
        ) == before
        engine.docker("push", name)
        assert "/v2/made/x/manifests/1" in stored
        client.stdout.close()


def test_a_client_that_goes_away_ends_its_push(engine, tmp_path):
    def answer(asked):
        if asked.method == "HEAD":
            return Answer(404)

        def stall(talk):
            talk.connection.settimeout(20)
            ended.append(talk.connection.recv(1))

        return stall

    ended = []
    with Server(answer) as server:
        name = f"{server.host}/made/x:1"
        load(engine, simple(name, files(a="1")), tmp_path)
        client = subprocess.Popen(
            ["docker", "push", name], env=engine.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: "POST" in [asked.method for asked in server.asked], what="the push")
        client.kill()
        client.wait()
        wait_until(lambda: b"" in ended, what="the end of the push")


def test_events(engine, registry, tmp_path):
    name = fresh(registry.host)
    since = time.time() - 1
    load(engine, simple(f"{name}:1", files(a=name)), tmp_path)
    identity = call(engine, "GET", f"/images/{name}:1/json")[1]["Id"]
    for arguments in (
        ("tag", f"{name}:1", f"{name}:2"),
        ("push", f"{name}:1"),
        ("save", "-o", tmp_path / "x.tar", f"{name}:1"),
        ("rmi", f"{name}:2"),
        ("rmi", f"{name}:1"),
        ("pull", f"{name}:1"),
        ("image", "prune", "-f"),
    ):
        engine.docker(*arguments)
    lines = engine.docker(
        "events", "--since", str(since), "--until", str(time.time()), "--filter", "type=image", "--format", "{{json .}}"
    )
    found = [json.loads(line) for line in lines.stdout.splitlines()]
    told = [(event["Action"], event["Actor"]["ID"], event["Actor"]["Attributes"].get("name")) for event in found]
    assert told == [
        ("load", identity, f"{name}:1"),
        ("tag", identity, f"{name}:2"),
        ("push", f"{name}:1", name),
        ("save", identity, identity),
        ("untag", identity, f"{name}:2"),
        ("untag", identity, f"{name}:1"),
        ("delete", identity, identity),
        ("pull", f"{name}:1", name),
        ("prune", "", None),
    ]
    assert found[-1]["Actor"]["Attributes"] == {"reclaimed": "0"}
