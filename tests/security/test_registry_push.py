"""Pushes to registries that break, refuse, stall, lie, and try to get at credentials."""

import base64
import json
import re
import socket
import threading
from urllib.parse import parse_qs, urlsplit

import pytest

from knarr import _core, errors
from tests.security.registry_server import OCI_MANIFEST, Answer, Server, certificate, digest

BASIC = "Basic " + base64.b64encode(b"ann:s3cret").decode()
BLOB = bytes(range(256)) * 4096 * 3  # 3 MiB


@pytest.fixture(autouse=True)
def no_proxy_of_ours(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Storage:
    """A registry's uploads as the specification has them. `limit`: of one request's body; `ways`: the methods it takes."""

    def __init__(self, *, limit=1 << 30, ways=("PUT", "PATCH"), base="", known=()):
        self.limit, self.ways, self.base = limit, ways, base
        self.sessions: dict[str, bytearray] = {}
        self.blobs: dict[str, bytes] = {}
        self.known = set(known)
        self.manifests: dict[str, bytes] = {}

    def __call__(self, asked):
        query = {name: values[0] for name, values in parse_qs(urlsplit(asked.target).query).items()}
        if "/manifests/" in asked.path:
            self.manifests[asked.path.rpartition("/")[2]] = asked.body
            return Answer(201, b"", {"Docker-Content-Digest": digest(asked.body)})
        if asked.method == "HEAD":
            found = self.blobs.get(asked.path.rpartition("/")[2])
            return Answer(404) if found is None else Answer(200, b"", {"Content-Length": str(len(found))})
        if asked.method == "POST":
            if query.get("from") in self.known:
                return Answer(201, b"", {"Docker-Content-Digest": query["mount"]})
            name = f"s{len(self.sessions)}"
            self.sessions[name] = bytearray()
            return Answer(202, b"", {"Location": f"{self.base}/v2/a/b/blobs/uploads/{name}?_state=x"})
        name = asked.path.rpartition("/")[2]
        if name not in self.sessions:
            return Answer(404, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"unknown"}]}')
        held = self.sessions[name]
        location = {"Location": f"{self.base}/v2/a/b/blobs/uploads/{name}?_state=y",
                    "Range": f"0-{max(0, len(held) - 1)}"}  # fmt: skip
        if asked.method == "GET":
            return Answer(204, b"", location)
        if asked.body and asked.method not in self.ways:
            return Answer(405, b"", {})
        if len(asked.body) > self.limit:
            return Answer(413, b"", {})
        start = re.match(r"(\d+)-", asked.headers.get("content-range", "0-" if asked.body else ""))
        if start and int(start[1]) != len(held):
            return Answer(416, b"", location)
        held += asked.body
        if asked.method == "PATCH":
            return Answer(202, b"", {**location, "Range": f"0-{len(held) - 1}"})
        if digest(bytes(held)) != query["digest"]:
            return Answer(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match"}]}')
        self.blobs[query["digest"]] = bytes(held)
        return Answer(201, b"", {"Docker-Content-Digest": query["digest"]})


def client(server, **options):
    return _core.Registry(server.host, scheme=server.url.split(":")[0], **{"timeout": 2.0, **options})


@pytest.fixture
def blob(tmp_path):
    path = tmp_path / "blob"
    path.write_bytes(BLOB)
    return (digest(BLOB), len(BLOB), str(path), "")


def push(server, *blobs, **options):
    progress = _core.Progress()
    client(server, **options).push("a/b", list(blobs), progress)
    return [(phase, done) for _, phase, done, _ in progress.snapshot()]


def methods(server):
    return [asked.method for asked in server.asked]


def test_a_monolithic_upload(blob):
    storage = Storage()
    with Server(storage) as server:
        assert push(server, blob) == [("done", len(BLOB))]
        assert methods(server) == ["HEAD", "POST", "PUT"]
        assert "content-range" not in server.asked[2].headers
        assert push(server, blob) == [("exists", len(BLOB))]
    assert storage.blobs == {blob[0]: BLOB}


def test_over_tls(blob, tmp_path):
    tls, _ = certificate(tmp_path)
    with Server(storage := Storage(), tls) as server:
        assert push(server, blob, insecure=True) == [("done", len(BLOB))]
        with pytest.raises(errors.Unavailable, match="certificate is not trusted"):
            push(server, blob)
    assert storage.blobs == {blob[0]: BLOB}


def test_a_registry_that_speaks_no_tls(blob):
    with (
        Server(Storage()) as server,
        pytest.raises(errors.Unavailable, match="server gave HTTP response to HTTPS client"),
    ):
        _core.Registry(server.host, scheme="https", timeout=2.0).push("a/b", [blob], _core.Progress())


@pytest.mark.parametrize("secure", [False, True])
def test_a_registry_that_has_had_enough_before_the_end(tmp_path, secure):
    """It answers, reads no further and keeps the connection: the answer is heard all the same."""
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(64 << 20)  # more than any socket holds
    tls, _ = certificate(tmp_path)
    listener = socket.create_server(("127.0.0.1", 0))
    kept = []

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(connection):
        kept.append(connection := tls.wrap_socket(connection, server_side=True) if secure else connection)
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := connection.recv(1)):
                return
            data += piece
            if data.endswith(b"\r\n\r\n"):
                answer = {b"HEAD": "404 Not Found", b"POST": "202 Accepted\r\nLocation: /s"}.get(
                    data.split()[0], "413 Too Large"
                )
                connection.sendall(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n".encode())
                data = b"" if data.split()[0] in {b"HEAD", b"POST"} else data

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        registry = _core.Registry(address, scheme="https" if secure else "http", insecure=True, timeout=20.0)
        with pytest.raises(errors.Unavailable, match="answered 413"):
            registry.push("a/b", [(digest(b"any"), 64 << 20, str(big), "")], _core.Progress())
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in kept:
            connection.close()


def test_an_empty_blob(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    with Server(storage := Storage()) as server:
        assert push(server, (digest(b""), 0, str(tmp_path / "empty"), "")) == [("done", 0)]
    assert storage.blobs == {digest(b""): b""}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ways": ("PATCH",)}, ["PUT", "POST", "PATCH", "PUT"]),
        ({"limit": 2 << 20}, ["PUT", "POST", "PATCH", "POST", "PATCH", "PATCH", "PUT"]),
    ],
)
def test_registries_that_want_it_in_pieces(blob, options, expected):
    storage = Storage(**options)
    with Server(storage) as server:
        assert push(server, blob) == [("done", len(BLOB))]
        assert methods(server) == ["HEAD", "POST", *expected]
    assert storage.blobs == {blob[0]: BLOB}


def test_a_registry_that_takes_it_in_no_way(blob):
    with (
        Server(Storage(ways=())) as server,
        pytest.raises(errors.Unavailable, match="answered 405"),
    ):
        push(server, blob)
    with Server(Storage(limit=100_000)) as server, pytest.raises(errors.Unavailable, match="answered 413"):
        push(server, blob)


def test_a_broken_connection_is_mended_from_where_it_broke(blob):
    storage, cut = Storage(), []

    def breaking(asked):
        if asked.method == "PUT" and not cut and "/uploads/" in asked.path:
            cut.append(asked)
            storage.sessions["s0"] += asked.body[: 2 << 20]  # so much had arrived
            return lambda talk: None
        return storage(asked)

    with Server(breaking) as server:
        assert push(server, blob) == [("done", len(BLOB))]
        assert methods(server) == ["HEAD", "POST", "PUT", "GET", "PUT"]
        last = server.asked[-1]
        assert last.headers["content-range"] == f"{2 << 20}-{len(BLOB) - 1}"
        assert len(last.body) == len(BLOB) - (2 << 20)
    assert storage.blobs == {blob[0]: BLOB}


def test_a_session_that_is_forgotten_is_begun_anew(blob):
    storage, cut = Storage(), []

    def breaking(asked):
        if asked.method == "PUT" and not cut:
            cut.append(asked)
            del storage.sessions["s0"]
            return lambda talk: None
        return storage(asked)

    with Server(breaking) as server:
        assert push(server, blob) == [("done", len(BLOB))]
        assert methods(server) == ["HEAD", "POST", "PUT", "GET", "HEAD", "POST", "PUT"]


def test_an_end_whose_answer_was_lost_is_not_sent_again(blob):
    """The registry had it all when the connection broke: that is seen by asking for the blob."""
    storage, cut = Storage(), []

    def breaking(asked):
        found = storage(asked)
        if asked.method == "PUT" and not cut:
            cut.append(asked)
            storage.sessions.clear()
            return lambda talk: None
        return found

    with Server(breaking) as server:
        assert push(server, blob) == [("exists", len(BLOB))]
        assert methods(server).count("PUT") == 1


def test_a_registry_that_is_always_busy(blob):
    with (
        Server(lambda asked: Answer(404) if asked.method == "HEAD" else Answer(503, b"busy")) as server,
        pytest.raises(errors.Unavailable, match="503: busy"),
    ):
        push(server, blob)
    assert methods(server).count("POST") == 5


def test_a_registry_that_stalls(blob):
    with (
        Server(lambda asked: lambda talk: talk.stall()) as server,
        pytest.raises(errors.Unavailable, match="no byte came"),
    ):
        push(server, blob, timeout=0.05)


def test_a_cancelled_push_ends_soon(blob):
    progress, begun = _core.Progress(), threading.Event()

    def answer(asked):
        if asked.method == "HEAD":
            return Answer(404)

        def stall(talk):
            begun.set()
            talk.stall()

        return stall

    with Server(answer) as server:
        registry, caught = client(server, timeout=60.0), []

        def work():
            with pytest.raises(errors.Unavailable, match="cancelled"):
                registry.push("a/b", [blob], progress)
            caught.append(True)

        thread = threading.Thread(target=work)
        thread.start()
        assert begun.wait(10)
        progress.cancel()
        thread.join(10)
        assert caught


def test_one_failure_ends_the_others(tmp_path):
    blobs = []
    for number in range(12):
        (tmp_path / str(number)).write_bytes(data := b"%d" % number * 100)
        blobs.append((digest(data), len(data), str(tmp_path / str(number)), ""))
    denied = Answer(403, b'{"errors":[{"code":"DENIED","message":"no"}]}')
    with Server(lambda asked: Answer(404) if asked.method == "HEAD" else denied) as server:
        with pytest.raises(errors.PermissionDenied, match=r"push access denied for .*a/b.*denied: no"):
            push(server, *blobs)
        assert len(server.asked) <= 12


def test_a_file_that_is_gone_or_too_short(blob, tmp_path):
    with Server(Storage()) as server:
        with pytest.raises(errors.NotFound, match="cannot be read from the disk"):
            push(server, (*blob[:2], str(tmp_path / "none"), ""))
        with pytest.raises(errors.KnarrError, match="cannot be read from the disk"):
            push(server, (blob[0], len(BLOB) + 1, blob[2], ""))


def test_mounts(blob):
    storage = Storage(known={"other/repo"})
    with Server(storage) as server:
        assert push(server, (*blob[:3], "other/repo"))[0][0] == "mounted"
        assert methods(server) == ["HEAD", "POST"]
        assert parse_qs(urlsplit(server.asked[1].target).query) == {"mount": [blob[0]], "from": ["other/repo"]}
        assert push(server, (*blob[:3], "strange/repo"))[0][0] == "done", "the session it gave instead is used"
        assert methods(server)[2:] == ["HEAD", "POST", "PUT"]


def test_a_mount_that_is_refused_is_an_upload(blob):
    storage = Storage()

    def answer(asked):
        return Answer(403, b"") if "mount=" in asked.target else storage(asked)

    with Server(answer) as server:
        assert push(server, (*blob[:3], "closed/repo"))[0][0] == "done"


@pytest.mark.parametrize("field", ["repository", "source", "tag"])
def test_names_that_could_leave_the_repository(blob, field):
    with Server(Storage()) as server:
        registry = client(server)
        with pytest.raises(errors.InvalidArgument, match="malformed"):
            if field == "repository":
                registry.push("../x", [blob], _core.Progress())
            elif field == "source":
                registry.push("a/b", [(*blob[:3], "a/../../x")], _core.Progress())
            else:
                registry.put_manifest("a/b", "../../x", OCI_MANIFEST, b"{}", _core.Progress())
        assert server.asked == []


def lying(what):
    storage = Storage()

    def answer(asked):
        found = storage(asked)
        if what == "digest" and asked.method == "PUT":
            found.headers["Docker-Content-Digest"] = digest(b"else")
        if what == "range" and asked.method == "PATCH":
            found.headers["Range"] = "0-999999999999"
        if what == "nonsense" and asked.method == "PATCH":
            found.headers["Range"] = "bytes 7"
        if what == "nothing" and asked.method in {"PATCH", "GET"}:
            storage.sessions["s0"] = storage.sessions["s1"] = bytearray()
            found.headers["Range"] = "0-0"
        if what == "no location" and asked.method == "POST":
            del found.headers["Location"]
        if what == "mount" and asked.method == "POST":
            return Answer(201, b"", {"Docker-Content-Digest": digest(b"else")})
        return found

    storage.ways = ("PATCH",) if what in {"range", "nonsense", "nothing"} else ("PUT",)
    return answer


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("digest", "is corrupt"),
        ("range", "holds the bytes"),
        ("nonsense", "holds the bytes"),
        ("nothing", "holds the bytes"),
        ("no location", "it has no Location"),
        ("mount", "is corrupt"),
    ],
)
def test_registries_that_lie(blob, what, words):
    with Server(lying(what)) as server, pytest.raises(errors.KnarrError, match=words):
        push(server, (*blob[:3], "other/repo" if what == "mount" else ""))


def test_a_manifest_that_the_registry_changes():
    with (
        Server(lambda asked: Answer(201, b"", {"Docker-Content-Digest": digest(b"else")})) as server,
        pytest.raises(errors.Corrupt, match="is corrupt"),
    ):
        client(server).put_manifest("a/b", "1", OCI_MANIFEST, b"{}", _core.Progress())


# Credentials


def basic(storage):
    def answer(asked):
        if asked.authorization != BASIC:
            return Answer(401, b"", {"WWW-Authenticate": "Basic realm=x"})
        return storage(asked)

    return answer


@pytest.mark.parametrize("way", ["session", "redirect"])
def test_an_upload_that_is_sent_elsewhere_goes_without_authorization(blob, way):
    elsewhere = Storage()
    elsewhere.sessions["s0"] = bytearray()
    with Server(elsewhere) as other:
        here = Storage()

        def answer(asked):
            if asked.authorization != BASIC:
                return Answer(401, b"", {"WWW-Authenticate": "Basic realm=x"})
            if way == "redirect" and asked.method == "PUT":
                return Answer(307, b"", {"Location": f"{other.url}{asked.target}"})
            found = here(asked)
            if way == "session" and asked.method == "POST":
                found.headers["Location"] = f"{other.url}/v2/a/b/blobs/uploads/s0"
            return found

        with Server(answer) as server:
            assert push(server, blob, username="ann", password="s3cret")[0][0] == "done"
        assert elsewhere.blobs == {blob[0]: BLOB}
        assert {asked.authorization for asked in other.asked} == {None}
        assert "s3cret" not in str([asked.headers for asked in other.asked])


def test_what_another_host_says_of_the_registry_is_asked_without_authorization(blob):
    """A session that has been elsewhere could be led to any path of the registry."""
    led_to = "/v2/victim/blobs/uploads/x"

    def elsewhere(asked):
        if asked.method == "PUT":
            return Answer(405)
        return Answer(202, b"", {"Location": f"{server.url}{led_to}", "Range": f"0-{len(BLOB) - 1}"})

    def answer(asked):
        if asked.path == led_to:
            return Answer(201)
        if asked.authorization != BASIC:
            return Answer(401, b"", {"WWW-Authenticate": "Basic realm=x"})
        return Answer(404) if asked.method == "HEAD" else Answer(202, b"", {"Location": f"{other.url}/session"})

    with Server(elsewhere) as other, Server(answer) as server:
        push(server, blob, username="ann", password="s3cret")
        led = [asked.authorization for asked in server.asked if asked.path == led_to]
        assert led == [None]


def test_an_upload_does_not_go_from_https_to_http(blob, tmp_path):
    tls, _ = certificate(tmp_path)
    with Server(Storage()) as plain:

        def answer(asked):
            if asked.method == "HEAD":
                return Answer(404)
            return Answer(202, b"", {"Location": f"{plain.url}/v2/a/b/blobs/uploads/x"})

        with Server(answer, tls) as server, pytest.raises(errors.PermissionDenied, match="from https to plain http"):
            push(server, blob, insecure=True)
        assert plain.asked == []


@pytest.mark.parametrize("status", [301, 302, 303])
def test_redirects_that_would_turn_an_upload_into_something_else(blob, status):
    with Server(Storage()) as other:

        def answer(asked):
            if asked.method == "HEAD":
                return Answer(404)
            return Answer(status, b"", {"Location": other.url})

        with Server(answer) as server, pytest.raises(errors.Unavailable, match=f"answered {status}"):
            push(server, blob)
        assert other.asked == []


def guarded(issuer, storage, token="t0ken"):
    def answer(asked):
        if asked.authorization != f"Bearer {token}":
            actions = "pull" if asked.method == "HEAD" else "pull,push"
            challenge = f'Bearer realm="{issuer()}",service="registry.test",scope="repository:a/b:{actions}"'
            return Answer(401, b"", {"WWW-Authenticate": challenge})
        return storage(asked)

    return answer


def test_one_token_for_a_whole_push(blob):
    with (
        Server(lambda _: Answer(200, b'{"token":"t0ken"}')) as issuer,
        Server(guarded(lambda: issuer.url, Storage(known={"c/d"}))) as server,
    ):
        push(server, (*blob[:3], "c/d"), username="ann", password="s3cret")
        (asked,) = issuer.asked
        query = parse_qs(urlsplit(asked.target).query)
        assert query["scope"] == ["repository:a/b:pull,push", "repository:c/d:pull"]
        assert asked.authorization == BASIC
        assert BASIC not in [asked.authorization for asked in server.asked]


def test_a_token_that_expires_while_a_blob_goes_out(blob):
    current, storage = ["one"], Storage()

    def answer(asked):
        if asked.method == "PUT" and current[0] == "one":
            current[0] = "two"
        return guarded(lambda: issuer.url, storage, current[0])(asked)

    with Server(lambda _: Answer(200, b'{"token":"%s"}' % current[0].encode())) as issuer, Server(answer) as server:
        assert push(server, blob)[0][0] == "done"
        assert len(issuer.asked) == 2
    assert storage.blobs == {blob[0]: BLOB}


# Logins


def test_a_login_gets_an_identity_token():
    tokens = b'{"token":"t0ken","refresh_token":"keep-me"}'
    with (
        Server(lambda _: Answer(200, tokens)) as issuer,
        Server(guarded(lambda: issuer.url, lambda _: Answer(200, b"{}"))) as server,
    ):
        assert client(server, username="ann", password="s3cret").login() == "keep-me"
        query = parse_qs(urlsplit(issuer.asked[0].target).query)
        assert (query["offline_token"], query["account"]) == (["true"], ["ann"])
        assert issuer.asked[0].authorization == BASIC


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_login_that_the_token_server_refuses(status):
    body = b'{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}'
    with (
        Server(lambda _: Answer(status, body)) as issuer,
        Server(guarded(lambda: issuer.url, Storage())) as server,
        pytest.raises(errors.Unauthorized, match="unauthorized: incorrect username or password") as caught,
    ):
        client(server, username="ann", password="s3cret").login()
    assert "s3cret" not in str(caught.value)


def test_an_identity_token_that_is_none():
    tokens = b'{"token":"t0ken","refresh_token":"a\\r\\nX-Evil: 1"}'
    with (
        Server(lambda _: Answer(200, tokens)) as issuer,
        Server(guarded(lambda: issuer.url, lambda _: Answer(200, b"{}"))) as server,
    ):
        assert client(server, username="ann", password="s3cret").login() == ""


# Lists of tags


def test_tags_over_several_pages():
    def answer(asked):
        if "last=b" in asked.target:
            return Answer(200, b'{"tags":["c"]}')
        return Answer(200, b'{"tags":["a","b"]}', {"Link": '</v2/a/b/tags/list?last=b&n=2>; rel="next"'})

    with Server(answer) as server:
        assert client(server).tags("a/b") == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(200, b'{"tags":["../../etc"]}'), errors.InvalidArgument),
        (Answer(200, b"<html>"), errors.Corrupt),
        (Answer(200, b"x" * (5 << 20)), errors.Corrupt),
        (Answer(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known"}]}'), errors.NotFound),
    ],
)
def test_lists_of_tags_that_are_none(answer, kind):
    with Server(lambda _: answer) as server, pytest.raises(kind):
        client(server).tags("a/b")


def test_a_list_of_tags_that_never_ends():
    pages = []

    def answer(asked):
        pages.append(asked)
        body = json.dumps({"tags": [f"t{len(pages)}"] if len(pages) < 10 else []})
        return Answer(200, body.encode(), {"Link": f'</v2/a/b/tags/list?last={len(pages)}>; rel="next"'})

    with Server(answer) as server:
        assert len(client(server).tags("a/b")) == 9
    assert len(pages) == 10


def test_pages_are_not_followed_elsewhere():
    with Server(lambda _: Answer(200, b'{"tags":["z"]}')) as other:
        link = {"Link": f'<{other.url}/v2/a/b/tags/list>; rel="next"'}
        with Server(lambda _: Answer(200, b'{"tags":["a"]}', link)) as server:
            assert client(server).tags("a/b") == ["a"]
        assert other.asked == []
