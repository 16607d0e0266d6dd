"""Where credentials come from, and that they show nowhere."""

import base64
import json
import os
import stat

import pytest

from knarr import credentials
from knarr.credentials import ANONYMOUS, Credential, decode_header, encode_header, lookup
from knarr.errors import InvalidArgument, Unavailable


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.json"

    def write(value):
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return str(path)

    return write


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """Installs a program docker-credential-test with the body given."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def install(body):
        path = tmp_path / "docker-credential-test"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return install


def auth(user, password):
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("quay.io", "quay.io"),
        ("https://quay.io", "quay.io"),
        ("https://quay.io/v1/", "quay.io"),
        ("http://127.0.0.1:5000", "127.0.0.1:5000"),
    ],
)
def test_auths(config, key, host):
    path = config({"auths": {key: auth("me", "pass:word")}})
    assert lookup(host, path) == Credential("me", "pass:word")
    assert lookup("other.example", path) is None
    assert lookup(f"{host}.example", path) is None


def test_identity_tokens_and_plain_fields(config):
    path = config({"auths": {"a.io": {"identitytoken": "t"}, "b.io": {"username": "u", "password": "p"}, "c.io": {}}})
    assert lookup("a.io", path) == Credential("<token>", "t")
    assert lookup("b.io", path) == Credential("u", "p")
    assert lookup("c.io", path) is None


def test_no_configuration_is_anonymous(config, tmp_path):
    assert lookup("a.io", str(tmp_path / "none.json")) is None
    assert lookup("a.io", config("")) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": []}', '{"auths": {"a.io": 1}}', "[" * 100_000, '{"auths": {"a.io": {"auth": "%%"}}}',
                                  '{"credHelpers": {"a.io": "../x"}}', '{"credsStore": "a/b"}'])  # fmt: skip
def test_malformed_configurations_are_named(config, text):
    path = config(text)
    with pytest.raises(InvalidArgument, match=r"config\.json"):
        lookup("a.io", path)


def test_helpers_are_asked_first(config, helper):
    helper(
        """read server; test "$1" = get && echo "{\\"ServerURL\\": \\"$server\\", \\"Username\\": \\"$server\\", \\"Secret\\": \\"s\\"}" """
    )
    assert lookup("a.io", config({"credHelpers": {"a.io": "test"}, "auths": {"a.io": auth("x", "y")}})) == Credential(
        "a.io", "s"
    )
    assert lookup("docker.io", config({"credsStore": "test"})) == Credential("https://index.docker.io/v1/", "s")


def test_a_helper_that_has_nothing_leaves_it_to_auths(config, helper):
    helper("echo credentials not found in native keychain; exit 1")
    assert lookup("a.io", config({"credsStore": "test", "auths": {"a.io": auth("x", "y")}})) == Credential("x", "y")


def test_helpers_that_fail(config, helper, monkeypatch):
    path = config({"credsStore": "test"})
    with pytest.raises(Unavailable, match="docker-credential-test"):
        lookup("a.io", path)
    for body in ["echo locked; exit 1", "echo '{'", 'echo \'{"Username": 1, "Secret": 2}\'', "echo '[]'"]:
        helper(body)
        with pytest.raises(Unavailable, match="docker-credential-test"):
            lookup("a.io", path)
    monkeypatch.setattr(credentials, "HELPER_SECONDS", 0.2)
    helper("exec sleep 5")
    with pytest.raises(Unavailable, match="did not answer"):
        lookup("a.io", path)


def test_the_header_goes_there_and_back():
    for credential in (Credential("u", "p/+ü"), Credential("<token>", "t")):
        assert decode_header(encode_header(credential, "a.io")) == credential
        assert decode_header(encode_header(credential, "a.io").rstrip("=")) == credential
    assert decode_header("") is None
    assert decode_header(base64.urlsafe_b64encode(b"{}").decode()) == ANONYMOUS


@pytest.mark.parametrize(
    "value",
    ["!", "e30x", "bnVsbA==", "WzFd", "é", "e" * 100_000, base64.urlsafe_b64encode(b'{"username": 1}').decode()],
)
def test_malformed_headers(value):
    with pytest.raises(InvalidArgument, match="invalid X-Registry-Auth header"):
        decode_header(value)


@pytest.mark.parametrize("field", ["identitytoken", "registrytoken"])
def test_tokens_are_told_from_passwords(field):
    header = base64.urlsafe_b64encode(json.dumps({field: "t"}).encode()).decode()
    credential = decode_header(header)
    assert credential.password == "t"
    assert json.loads(base64.urlsafe_b64decode(encode_header(credential, "a.io"))) == {
        "serveraddress": "a.io",
        field: "t",
    }


def test_secrets_do_not_show():
    assert "secret" not in repr(Credential("u", "secret"))
    assert "secret" not in f"{Credential('u', 'secret')}"
