"""Credentials and tokens: they go to the registry and to the token server it names, and nowhere else."""

import base64
from urllib.parse import parse_qs, urlsplit

import pytest

from knarr import _core, errors
from tests.security.registry_server import MANIFEST, Answer, Server, certificate, digest, manifest_answer, ranged

BASIC = "Basic " + base64.b64encode(b"ann:s3cret").decode()


@pytest.fixture(autouse=True)
def no_proxy_of_ours(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def client(server, **options):
    return _core.Registry(server.host, scheme=server.url.split(":")[0], **{"timeout": 2.0, **options})


def guarded(server_of_tokens, token="t0ken", scope='scope="repository:a/b:pull"', blob=b""):
    """A registry that wants a token for everything."""

    def answer(asked):
        if asked.authorization != f"Bearer {token}":
            challenge = f'Bearer realm="{server_of_tokens()}",service="registry.test",{scope}'
            return Answer(
                401,
                b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}',
                {"WWW-Authenticate": challenge},
            )
        return ranged(asked, blob) if "/blobs/" in asked.path else manifest_answer()

    return answer


def tokens(token="t0ken", **more):
    import json

    return lambda _: Answer(200, json.dumps({"token": token, **more}).encode(), {"Content-Type": "application/json"})


def test_an_anonymous_token_is_asked_for_once():
    blob = b"config"
    with (
        Server(tokens(expires_in=300)) as issuer,
        Server(guarded(lambda: issuer.url + "/token?x=1", blob=blob)) as server,
    ):
        registry = client(server)
        for _ in range(3):
            assert registry.manifest("a/b", "latest")[0] == MANIFEST
        assert registry.blob("a/b", digest(blob), 100) == blob
        assert [asked.authorization for asked in server.asked] == [None, *["Bearer t0ken"] * 4]
        (asked,) = issuer.asked
        assert asked.method == "GET"
        assert asked.authorization is None
        query = parse_qs(urlsplit(asked.target).query)
        assert query == {"x": ["1"], "service": ["registry.test"], "scope": ["repository:a/b:pull"]}


def test_a_registrys_own_token_is_for_the_registry_alone():
    own = {"username": "<registry-token>", "password": "t0ken"}
    with Server(tokens("other")) as issuer, Server(guarded(lambda: issuer.url)) as server:
        registry = client(server, **own)
        for _ in range(2):
            assert registry.manifest("a/b", "latest")[0] == MANIFEST
        assert [asked.authorization for asked in server.asked] == [None, "Bearer t0ken", "Bearer t0ken"]
        with pytest.raises(errors.Unauthorized):
            client(server, **own | {"password": "wrong"}).manifest("a/b", "latest")
        assert server.asked[-1].authorization == "Bearer wrong"
        assert issuer.asked == []


def test_each_repository_has_a_token_of_its_own():
    with Server(tokens()) as issuer, Server(guarded(lambda: issuer.url, scope='scope=""')) as server:
        registry = client(server)
        registry.manifest("a/b", "1")
        registry.manifest("c", "1")
        scopes = [parse_qs(urlsplit(asked.target).query)["scope"] for asked in issuer.asked]
        assert scopes == [["repository:a/b:pull"], ["repository:c:pull"]]


def test_a_token_that_is_no_longer_taken_is_replaced():
    current = ["one"]

    def issue(asked):
        return tokens(current[0])(asked)

    with Server(issue) as issuer:

        def answer(asked):
            return guarded(lambda: issuer.url, current[0])(asked)

        with Server(answer) as server:
            registry = client(server)
            registry.manifest("a/b", "1")
            current[0] = "two"
            registry.manifest("a/b", "1")
            assert len(issuer.asked) == 2
            assert server.asked[-1].authorization == "Bearer two"


def test_a_token_that_is_never_taken_ends_the_pull():
    with Server(tokens("wrong")) as issuer, Server(guarded(lambda: issuer.url, "right")) as server:
        with pytest.raises(
            errors.Unauthorized,
            match=r"pull access denied for .*a/b, repository does not exist or may require 'docker login'",
        ):
            client(server).manifest("a/b", "1")
        assert len(issuer.asked) <= 2


def test_a_password_goes_to_the_token_server_and_not_to_the_registry():
    with Server(tokens()) as issuer, Server(guarded(lambda: issuer.url)) as server:
        client(server, username="ann", password="s3cret").manifest("a/b", "1")
        assert [asked.authorization for asked in issuer.asked] == [BASIC]
        assert parse_qs(urlsplit(issuer.asked[0].target).query)["account"] == ["ann"]
        assert BASIC not in [asked.authorization for asked in server.asked]


def test_an_identity_token_is_exchanged_by_post():
    with (
        Server(lambda _: Answer(200, b'{"access_token":"t0ken"}')) as issuer,
        Server(guarded(lambda: issuer.url)) as server,
    ):
        client(server, username="<token>", password="refresh&me").manifest("a/b", "1")
        (asked,) = issuer.asked
        assert asked.method == "POST"
        assert asked.authorization is None
        assert "?" not in asked.target
        assert parse_qs(asked.body.decode()) == {
            "grant_type": ["refresh_token"], "client_id": ["knarr"], "refresh_token": ["refresh&me"],
            "service": ["registry.test"], "scope": ["repository:a/b:pull"],
        }  # fmt: skip


def basic_registry(asked):
    if asked.authorization != BASIC:
        return Answer(401, b"", {"WWW-Authenticate": 'Negotiate, Basic realm="a registry, with \\"quotes\\""'})
    return manifest_answer()


def test_basic_credentials_are_sent_when_they_are_asked_for():
    with Server(basic_registry) as server:
        registry = client(server, username="ann", password="s3cret")
        registry.manifest("a", "1")
        registry.manifest("a", "1")
        assert [asked.authorization for asked in server.asked] == [None, BASIC, BASIC]


def test_wrong_basic_credentials_are_named_as_such():
    with Server(basic_registry) as server:
        with pytest.raises(errors.Unauthorized, match=f"{server.host} refused the credentials for {server.host}/a"):
            client(server, username="ann", password="guess").manifest("a", "1")
        with pytest.raises(errors.Unauthorized, match="may require 'docker login'"):
            client(server).manifest("a", "1")


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_token_server_that_refuses_the_password(status):
    with (
        Server(lambda _: Answer(status, b'{"details":"incorrect username or password"}')) as issuer,
        Server(guarded(lambda: issuer.url)) as server,
        pytest.raises(errors.Unauthorized, match=rf"{issuer.url}.* refused the credentials"),
    ):
        client(server, username="ann", password="s3cret").manifest("a/b", "1")


@pytest.mark.parametrize(
    "realm", ["http://token.example/", "http://192.0.2.1/token", "ftp://x/", "http://u:p@127.0.0.1/", "nonsense", ""]
)
def test_credentials_are_withheld_from_token_servers_that_anyone_can_listen_to(realm):
    with Server(guarded(lambda: realm)) as server:
        with pytest.raises(errors.PermissionDenied, match="were not sent to the token server"):
            client(server, username="ann", password="s3cret").manifest("a/b", "1")
        assert len(server.asked) == 1


def test_a_registry_on_https_may_not_name_a_token_server_on_http_even_to_the_anonymous(tmp_path):
    tls, _ = certificate(tmp_path)
    with (
        Server(guarded(lambda: "http://192.0.2.1/token"), tls) as server,
        pytest.raises(errors.PermissionDenied, match="neither https nor"),
    ):
        client(server, insecure=True).manifest("a/b", "1")


def test_credentials_do_not_follow_a_redirect_of_the_token_server():
    with Server(tokens()) as thief, Server(lambda _: Answer(307, b"", {"Location": thief.url + "/steal"})) as issuer:
        with Server(guarded(lambda: issuer.url)) as server:
            for name, secret in [("ann", "s3cret"), ("<token>", "identity")]:
                with pytest.raises(errors.PermissionDenied, match=r"redirect .* was refused"):
                    client(server, username=name, password=secret).manifest("a/b", "1")
        assert thief.asked == []


@pytest.mark.parametrize("body", [
    b"<html>log in</html>", b"{}", b"[]", b'{"token":""}', b'{"token":"a\\r\\nX-Evil: 1"}', b'{"token":"\\u00fc"}', b'{"token":5}',
    b'{"token":"' + b"x" * 70_000 + b'"}', b"x" * 2_000_000,
])  # fmt: skip
def test_what_is_no_token_is_refused(body):
    with Server(lambda _: Answer(200, body)) as issuer, Server(guarded(lambda: issuer.url)) as server:
        with pytest.raises(errors.Unavailable, match="a token was expected"):
            client(server).manifest("a/b", "1")
        assert len(server.asked) == 1


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
def test_a_redirected_blob_is_fetched_without_authorization(scheme):
    blob = b"layer" * 1000
    with Server(lambda asked: ranged(asked, blob)) as network, Server(tokens()) as issuer:

        def answer(asked):
            if scheme == "Basic" and asked.authorization != BASIC:
                return Answer(401, b"", {"WWW-Authenticate": "Basic realm=x"})
            if scheme == "Bearer" and asked.authorization != "Bearer t0ken":
                return guarded(lambda: issuer.url)(asked)
            return Answer(307, b"", {"Location": f"{network.url}/signed?signature=abc"})

        with Server(answer) as server:
            assert client(server, username="ann", password="s3cret").blob("a/b", digest(blob), 10_000) == blob
        (asked,) = network.asked
        assert asked.target == "/signed?signature=abc"
        assert asked.authorization is None
        assert not [value for value in asked.headers.values() if "t0ken" in value or BASIC in value]


def test_authorization_does_not_come_back_after_a_detour():
    with Server(lambda _: Answer(302, b"", {"Location": f"{server.url}/elsewhere"})) as network:

        def answer(asked):
            if asked.path == "/elsewhere":
                return Answer(401, b"", {"WWW-Authenticate": "Basic realm=x"})
            if asked.authorization != BASIC:
                return Answer(401, b"", {"WWW-Authenticate": "Basic realm=x"})
            return Answer(302, b"", {"Location": network.url})

        with Server(answer) as server:
            with pytest.raises(errors.KnarrError):
                client(server, username="ann", password="s3cret").manifest("a", "1")
            assert {asked.authorization for asked in server.asked if asked.path == "/elsewhere"} == {None}


def test_a_redirect_on_the_registry_itself_keeps_authorization():
    def answer(asked):
        if asked.authorization != BASIC:
            return Answer(401, b"", {"WWW-Authenticate": "Basic realm=x"})
        return Answer(301, b"", {"Location": "/v2/new/manifests/1"}) if "/old/" in asked.path else manifest_answer()

    with Server(answer) as server:
        assert client(server, username="ann", password="s3cret").manifest("old", "1")[0] == MANIFEST


def test_a_challenge_of_a_content_network_gets_no_answer():
    with (
        Server(lambda _: Answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{thief.url}"'})) as network,
        Server(tokens()) as thief,
    ):
        with Server(lambda _: Answer(307, b"", {"Location": network.url})) as server, pytest.raises(errors.Unavailable):
            client(server, username="ann", password="s3cret", timeout=0.5).manifest("a", "1")
        assert thief.asked == []


def test_nothing_secret_is_in_a_message():
    with Server(lambda _: Answer(403, b"no")) as network:

        def answer(asked):
            return Answer(307, b"", {"Location": f"{network.url}/x?X-Amz-Signature=verysecret"})

        with Server(answer) as server, pytest.raises(errors.KnarrError) as caught:
            client(server, username="ann", password="s3cret").manifest("a", "1")
    for secret in ("s3cret", "verysecret", BASIC[6:]):
        assert secret not in str(caught.value)
    assert "s3cret" not in repr(client(server, username="ann", password="s3cret"))
