"""Registries that stall, lie, break off, redirect, or are no registries at all: the right bytes or a clear error, in bounded time."""

import contextlib
import os
import socket
import threading
import time

import pytest

from knarr import _core, errors
from tests.layers import Member, archive, describe
from tests.security.registry_server import (
    MANIFEST,
    OCI_MANIFEST,
    Answer,
    Server,
    certificate,
    digest,
    head,
    manifest_answer,
    ranged,
)

BLOB = os.urandom(3_000_000)


@pytest.fixture(autouse=True)
def no_proxy_of_ours(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def client(server, **options):
    return _core.Registry(server.host, scheme=server.url.split(":")[0], **{"timeout": 1.0, **options})


def manifest(answer, reference="latest", repository="a/b", **options):
    """What a manifest request gives of a registry with this answer."""
    with Server(answer) as server:
        return client(server, **options).manifest(repository, reference)


def blob(answer, data=BLOB, limit=10_000_000, **options):
    with Server(answer) as server:
        return client(server, **options).blob("a/b", digest(data), limit)


# Manifests


@pytest.mark.parametrize(("answer", "error", "words"), [
    (Answer(200, b"<html>", {"Content-Type": "text/html; charset=utf-8"}), errors.Unavailable, "answered with text/html.*is it a registry"),
    (Answer(200, MANIFEST, {"Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"}), errors.Unsupported, "schema 1.*push it again"),
    (manifest_answer(b'{"schemaVersion":1}', "application/json"), errors.Unsupported, "schema 1"),
    (manifest_answer(b'{"schemaVersion":2,"mediaType":"application/x-thing"}', "application/json"), errors.Unsupported, "application/x-thing"),
    (manifest_answer(b"{}", OCI_MANIFEST + "x"), errors.Unsupported, "manifest.v1.jsonx"),
    (manifest_answer(MANIFEST, "application/vnd.oci.image.index.v1+json"), errors.Corrupt, "calls itself"),
    (manifest_answer(b"nonsense"), errors.Corrupt, "no manifest"),
    (manifest_answer(b""), errors.Corrupt, "no manifest"),
    (manifest_answer(b" " * ((4 << 20) + 1)), errors.Corrupt, "more than the 4194304 bytes allowed"),
    (manifest_answer(docker_content_digest=digest(b"other")), errors.Corrupt, "have the digest"),
    (Answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}'), errors.NotFound, "manifest for .*/a/b:latest not found: manifest unknown"),
    (Answer(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}'), errors.NotFound, "name unknown"),
    (Answer(404), errors.NotFound, "not found: manifest unknown$"),
    (Answer(401), errors.Unauthorized, "pull access denied for .*a/b, repository does not exist or may require 'docker login'"),
    (Answer(403, b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'), errors.PermissionDenied, "pull access denied.*denied: requested access"),
    (Answer(400, b"what?"), errors.Unavailable, "answered 400: what"),
    (Answer(418), errors.Unavailable, "418"),
    (Answer(429, b'{"errors":[{"code":"TOOMANYREQUESTS","message":"pull rate limit"}]}', {"Retry-After": "3600"}), errors.Unavailable, "wait 3600 s: toomanyrequests: pull rate limit"),
    (Answer(302, b"", {"Location": ""}), errors.PermissionDenied, "no Location"),
    (Answer(302, b"", {"Location": "ftp://x/"}), errors.PermissionDenied, "neither http nor https"),
    (Answer(302, b"", {"Location": "/v2/a/b/manifests/latest"}), errors.PermissionDenied, "more than 10"),
    (Answer(404, b"\x1b[2J\x07terminal tricks"), errors.NotFound, r"not found: \[2Jterminal tricks"),
])  # fmt: skip
def test_a_manifest_that_is_none(answer, error, words):
    with pytest.raises(error, match=words):
        manifest(lambda _: answer)


def test_a_manifest_by_digest_is_verified():
    assert manifest(lambda _: manifest_answer(), digest(MANIFEST))[2] == digest(MANIFEST)
    with pytest.raises(errors.Corrupt, match="have the digest"):
        manifest(lambda _: manifest_answer(), digest(b"other"))
    # What the registry says in a header does not help it.
    with pytest.raises(errors.Corrupt):
        manifest(lambda _: manifest_answer(docker_content_digest=digest(b"other")), digest(b"other"))


@pytest.mark.parametrize(("repository", "reference"), [
    ("../etc", "1"), ("a/../b", "1"), ("A", "1"), ("a b", "1"), ("a\0b", "1"), ("a\r\nX: y", "1"), ("", "1"), ("a?x", "1"), ("a/" * 200 + "a", "1"),
    ("a", ""), ("a", "../x"), ("a", "x y"), ("a", "x\r\n"), ("a", "x" * 129), ("a", "sha256:12"), ("a", "md5:" + "0" * 32), ("a", "sha512:" + "0" * 128),
])  # fmt: skip
def test_names_that_are_none_are_never_sent(repository, reference):
    with Server(lambda _: manifest_answer()) as server:
        with pytest.raises(errors.InvalidArgument):
            client(server).manifest(repository, reference)
        assert server.asked == []


@pytest.mark.parametrize("host", ["", "a/b", "user@host", "host:0", "host:99999", "a b", "h\r\nX: y", "[::1"])
def test_hosts_that_are_none(host):
    with pytest.raises(errors.InvalidArgument, match="registry host"):
        _core.Registry(host)


@pytest.mark.parametrize("raw", [
    b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 50, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 40_000,
])  # fmt: skip
def test_what_is_not_http_is_unavailable(raw):
    with pytest.raises((errors.Unavailable, errors.Corrupt)):
        manifest(lambda _: lambda talk: talk.send(raw))


def test_chunked_answers_and_answers_until_the_end_are_read():
    chunks = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + f"5;x=y\r\n{MANIFEST[:5].decode()}\r\n{len(MANIFEST) - 5:X}\r\n".encode()
        + MANIFEST[5:]
        + b"\r\n0\r\nTrailer: x\r\n\r\n"
    )
    assert manifest(lambda _: lambda talk: talk.send(chunks))[0] == MANIFEST
    assert manifest(lambda _: lambda talk: talk.send(b"HTTP/1.0 200 OK\r\n\r\n" + MANIFEST))[0] == MANIFEST
    assert (
        manifest(
            lambda _: (
                lambda talk: talk.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + head(len(MANIFEST)) + MANIFEST)
            )
        )[0]
        == MANIFEST
    )


def test_a_connection_closed_while_idle_is_made_again():
    with Server(lambda _: lambda talk: talk.send(head(len(MANIFEST)) + MANIFEST)) as server:
        registry = client(server)
        for _ in range(3):
            registry.manifest("a", "1")
        assert len(server.asked) == 3


def test_connections_are_used_again():
    ports = set()

    with Server(lambda _: manifest_answer()) as server:
        original = server.server.get_request

        def counted():
            found = original()
            ports.add(found[1][1])
            return found

        server.server.get_request = counted
        registry = client(server)
        for _ in range(5):
            registry.manifest("a", "1")
    assert len(ports) == 1


def test_a_manifest_that_never_comes():
    began = time.monotonic()
    with (
        Server(lambda _: lambda talk: talk.stall()) as server,
        pytest.raises(
            errors.Unavailable, match=f"{server.host}/a/b:latest: {server.host} is unavailable: no byte came for"
        ),
    ):
        client(server, timeout=0.3).manifest("a/b", "latest")
    assert time.monotonic() - began < 5


def test_nobody_listens():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(errors.Unavailable, match=f"cannot connect to {host}"):
        _core.Registry(host, scheme="http").manifest("a", "1")
    with pytest.raises(errors.Unavailable, match="does not resolve"):
        _core.Registry("no-such-host.invalid", scheme="http", timeout=2.0).manifest("a", "1")


def test_a_busy_registry_is_asked_again_when_it_says():
    times = []

    def answer(_):
        times.append(time.monotonic())
        return [Answer(503, b"", {"Retry-After": "1"}), Answer(429), manifest_answer()][len(times) - 1]

    assert manifest(answer)[0] == MANIFEST
    assert times[1] - times[0] >= 0.95


# Blobs


def test_a_small_blob_is_bounded_and_verified():
    assert blob(lambda asked: ranged(asked, BLOB)) == BLOB
    with pytest.raises(errors.Corrupt, match="have the digest"):
        blob(lambda asked: ranged(asked, b"x" * 100))
    with pytest.raises(errors.Corrupt, match="more than the 1000 bytes"):
        blob(lambda asked: ranged(asked, BLOB), limit=1000)
    with pytest.raises(errors.NotFound, match=r"blob .*/a/b@sha256:.* not found: blob unknown"):
        blob(lambda _: Answer(404, b'{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}'))
    with pytest.raises(errors.Unavailable, match="text/html where a blob was expected"):
        blob(lambda _: Answer(200, b"<html>", {"Content-Type": "text/html"}))
    with pytest.raises(errors.Unsupported, match='content coding "gzip"'):
        blob(lambda _: Answer(200, BLOB, {"Content-Encoding": "gzip"}))


def cut(*lengths, then=ranged):
    """Breaks off after so many bytes of each answer, then answers as it should."""
    left = list(lengths)

    def answer(asked):
        if not left:
            return then(asked, BLOB)
        length = left.pop(0)
        start = asked.start

        def send(talk):
            if start:
                talk.send(
                    head(
                        len(BLOB) - start,
                        "206 Partial Content",
                        f"Content-Range: bytes {start}-{len(BLOB) - 1}/{len(BLOB)}\r\n",
                    )
                )
            else:
                talk.send(head(len(BLOB)))
            talk.send(BLOB[start : start + length])

        return send

    return answer


def test_a_broken_connection_is_resumed_where_it_broke():
    with Server(cut(1_000_000, 5, 0)) as server:
        assert client(server).blob("a/b", digest(BLOB), 10_000_000) == BLOB
        assert [asked.start for asked in server.asked] == [0, 1_000_000, 1_000_005, 1_000_005]


def test_a_server_without_ranges_is_read_from_the_start_again():
    def whole(asked, data):
        return Answer(200, data)

    with Server(cut(1_000_000, then=whole)) as server:
        assert client(server).blob("a/b", digest(BLOB), 10_000_000) == BLOB
        assert [asked.start for asked in server.asked] == [0, 1_000_000]


def test_a_blob_that_always_breaks_ends_after_five_attempts():
    with Server(cut(*[10] * 50)) as server:
        with pytest.raises(errors.Unavailable) as caught:
            client(server).blob("a/b", digest(BLOB), 10_000_000)
        for part in (server.host, "/a/b", digest(BLOB), "after 50 bytes of 3000000"):
            assert part in str(caught.value)
        assert len(server.asked) == 5


def test_a_stall_is_broken_off_and_resumed():
    stalls = [1_500_000]

    def answer(asked):
        if not stalls:
            return ranged(asked, BLOB)
        length = stalls.pop()

        def send(talk):
            talk.send(head(len(BLOB)) + BLOB[:length])
            talk.stall()

        return send

    with Server(answer) as server:
        assert client(server, timeout=0.4).blob("a/b", digest(BLOB), 10_000_000) == BLOB
        assert [asked.start for asked in server.asked] == [0, 1_500_000]


@pytest.mark.parametrize("field", ["bytes 0-2999999/3000001", "bytes 5000-2999999/3000001"])
def test_ranges_that_contradict_the_size(field):
    def then(asked, data):
        return Answer(206, data[asked.start :], {"Content-Range": field})

    with pytest.raises(errors.KnarrError):
        blob(cut(1000, then=then))


@pytest.mark.parametrize("field", ["", "bytes 2000-2999999/3000000", "nonsense"])
def test_a_range_that_was_not_asked_for(field):
    def then(asked, data):
        return Answer(206, data[asked.start :], {"Content-Range": field})

    with pytest.raises(errors.Unavailable, match="not the one that was asked for"):
        blob(cut(1000, then=then))


def test_an_expired_link_is_asked_for_again():
    links = iter(range(100))

    def network(asked):
        return ranged(asked, BLOB) if asked.target == "/1" else Answer(403, b"<Error>expired</Error>")

    with (
        Server(network) as elsewhere,
        Server(lambda _: Answer(307, b"", {"Location": f"{elsewhere.url}/{next(links)}"})) as server,
    ):
        assert client(server).blob("a/b", digest(BLOB), 10_000_000) == BLOB


# Layers, where the manifest has promised a size


def layer():
    blobs, layers = describe(archive(Member("file", os.urandom(200_000))))
    return blobs[0], layers


def unpack(tmp_path, answer, layers, progress=None, **options):
    store = _core.Store(str(tmp_path / "root"))
    with Server(answer) as server:
        store.unpack(layers, progress or _core.Progress(), client(server, **options), "a/b")
    return store


def test_a_layer_arrives(tmp_path):
    data, layers = layer()
    store = unpack(tmp_path, lambda asked: ranged(asked, data), layers)
    assert os.listdir(store.snapshot_path(layers[0][4])) == ["file"]
    assert store.blob(layers[0][0]) == data


@pytest.mark.parametrize("make", [
    lambda data: Answer(200, data + b"more"),
    lambda data: Answer(200, data[:-10]),
    lambda data: Answer(200, b""),
    lambda data: lambda talk: talk.send(b"HTTP/1.0 200 OK\r\n\r\n" + data + b"more"),
    lambda data: Answer(200, f"{len(data) + 4:x}\r\n".encode() + data + b"more\r\n0\r\n\r\n", {"Transfer-Encoding": "chunked"}),
    lambda data: Answer(200, b"\0" * len(data)),
])  # fmt: skip
def test_a_layer_of_another_size_or_content_is_corrupt(tmp_path, make):
    data, layers = layer()
    with pytest.raises(errors.Corrupt, match=layers[0][0]):
        unpack(tmp_path, lambda _: make(data), layers)
    assert not _core.Store(str(tmp_path / "root")).has_snapshot(layers[0][4])


def test_a_layer_that_ends_early_every_time_is_unavailable(tmp_path):
    data, layers = layer()
    half = data[: len(data) // 2]
    with pytest.raises((errors.Unavailable, errors.Corrupt), match=layers[0][0]):
        unpack(tmp_path, lambda _: lambda talk: talk.send(b"HTTP/1.0 200 OK\r\n\r\n" + half), layers)


def test_an_endless_layer_ends(tmp_path):
    _, layers = layer()

    def flood(talk):
        talk.send(b"HTTP/1.0 200 OK\r\n\r\n" + b"\0" * 50_000_000)

    with pytest.raises(errors.Corrupt, match="more than"):
        unpack(tmp_path, lambda _: flood, layers)


def test_cancelling_ends_a_stall_at_once(tmp_path):
    data, layers = layer()

    def stall(talk):
        talk.send(head(len(data)) + data[:1000])
        talk.stall()

    progress = _core.Progress()
    timer = threading.Timer(0.5, progress.cancel)
    timer.start()
    began = time.monotonic()
    with pytest.raises(errors.Unavailable, match="cancelled"):
        unpack(tmp_path, lambda _: stall, layers, progress, timeout=60.0)
    assert time.monotonic() - began < 3
    timer.join()


def test_a_pull_broken_off_goes_on_where_it_was(tmp_path):
    data, layers = layer()
    half = len(data) // 2

    def broken(talk):
        talk.send(head(len(data)) + data[:half])

    with pytest.raises(errors.Unavailable):
        unpack(tmp_path, lambda asked: broken if not asked.start else Answer(503), layers)
    store = _core.Store(str(tmp_path / "root"))
    with Server(lambda asked: ranged(asked, data)) as server:
        store.unpack(layers, _core.Progress(), client(server), "a/b")
        assert [asked.start for asked in server.asked] == [half]
    assert store.blob(layers[0][0]) == data


# TLS


def test_tls_is_verified(tmp_path, monkeypatch):
    tls, authority = certificate(tmp_path)
    with Server(lambda _: manifest_answer(), tls) as server:
        with pytest.raises(errors.Unavailable, match="certificate is not trusted"):
            client(server).manifest("a", "1")
        assert client(server, insecure=True).manifest("a", "1")[0] == MANIFEST
        monkeypatch.setenv("SSL_CERT_FILE", authority)
        assert client(server).manifest("a", "1")[0] == MANIFEST
        by_name = _core.Registry(f"localhost:{server.port}", timeout=2.0)
        with pytest.raises(errors.Unavailable, match="certificate is not trusted"):
            by_name.manifest("a", "1")


def test_blobs_over_tls(tmp_path):
    tls, _ = certificate(tmp_path)
    with Server(lambda asked: ranged(asked, BLOB), tls) as server:
        assert client(server, insecure=True).blob("a", digest(BLOB), 10_000_000) == BLOB


def test_no_authorities_at_all_says_so(tmp_path, monkeypatch):
    tls, _ = certificate(tmp_path)
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(empty))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with (
        Server(lambda _: manifest_answer(), tls) as server,
        pytest.raises(errors.Unavailable, match="install the ca-certificates package"),
    ):
        client(server).manifest("a", "1")


def test_https_to_a_server_of_plain_http():
    with Server(lambda _: manifest_answer()) as server:
        registry = _core.Registry(server.host, timeout=2.0, insecure=True)
        with pytest.raises(errors.Unavailable, match="server gave HTTP response to HTTPS client"):
            registry.manifest("a", "1")


def test_a_redirect_from_https_to_http_is_refused(tmp_path):
    tls, _ = certificate(tmp_path)
    with Server(lambda _: manifest_answer()) as plain:
        with (
            Server(lambda _: Answer(307, b"", {"Location": plain.url}), tls) as server,
            pytest.raises(errors.PermissionDenied, match="from https to plain http"),
        ):
            client(server, insecure=True).manifest("a", "1")
        assert plain.asked == []


# Proxies


def test_a_proxy_is_asked_for_other_hosts(monkeypatch):
    with Server(lambda _: manifest_answer()) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", "//ann:pw@"))
        assert _core.Registry("registry.invalid", scheme="http").manifest("a", "1")[0] == MANIFEST
        (asked,) = proxy.asked
        assert asked.target == "http://registry.invalid/v2/a/manifests/1"
        assert asked.headers["proxy-authorization"].startswith("Basic ")
        assert client(proxy).manifest("a", "1")[0] == MANIFEST  # loopback needs none
        assert proxy.asked[-1].target == "/v2/a/manifests/1"
        monkeypatch.setenv("NO_PROXY", "invalid")
        with pytest.raises(errors.Unavailable, match="does not resolve"):
            _core.Registry("registry.invalid", scheme="http").manifest("a", "1")


def test_https_goes_through_a_tunnel(monkeypatch, tmp_path):
    tls, _ = certificate(tmp_path)
    with Server(lambda _: manifest_answer(), tls) as server:

        def tunnel(talk):
            with socket.create_connection(("127.0.0.1", server.port)) as beyond:
                talk.send(b"HTTP/1.1 200 Connection established\r\n\r\n")

                def copy(source, target):
                    with contextlib.suppress(OSError):  # the other direction has closed it
                        while data := source.recv(65536):
                            target.sendall(data)

                threading.Thread(target=copy, args=(beyond, talk.connection), daemon=True).start()
                copy(talk.connection, beyond)

        with Server(lambda _: tunnel) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            assert _core.Registry("registry.invalid", insecure=True).manifest("a", "1")[0] == MANIFEST
            assert (proxy.asked[0].method, proxy.asked[0].target) == ("CONNECT", "registry.invalid:443")


def test_a_proxy_that_refuses(monkeypatch):
    with Server(lambda _: Answer(407)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(
            errors.Unavailable, match=f"the proxy {proxy.host} answered 407 to CONNECT registry.invalid:443"
        ):
            _core.Registry("registry.invalid", timeout=2.0).manifest("a", "1")
    monkeypatch.setenv("HTTPS_PROXY", "socks5://x:1")
    with pytest.raises(errors.Unavailable, match="HTTPS_PROXY is not a usable proxy"):
        _core.Registry("registry.invalid").manifest("a", "1")
