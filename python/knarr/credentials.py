"""Credentials for registries: the user's docker configuration, helper programs, the API's header.

The command line reads the configuration of the user who runs it and sends what it finds as
X-Registry-Auth; the daemon reads that header and, where there is none, its own user's
configuration. A leaf: the standard library only, and lazily, since the command line imports it.

`config.json` (in $DOCKER_CONFIG or ~/.docker) is looked through in Docker's order: `credHelpers` for
the host, then `credsStore`, then `auths`. A helper is the program docker-credential-NAME: `get` with the
host on its standard input, a JSON object on its output. Nothing here ever logs or shows a secret.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from typing import Any, NamedTuple

from knarr.errors import InvalidArgument, Unavailable

__all__ = ["ANONYMOUS", "Credential", "decode_header", "encode_header", "from_object", "lookup"]

DOCKER_HUB = "https://index.docker.io/v1/"  # what Docker Hub's entry has been called since before it was Hub
MAX_CONFIG = 4 << 20
MAX_HEADER = 64 << 10
MAX_HELPER_OUTPUT = 1 << 20
HELPER_SECONDS = 30.0
TOKEN_USER = "<token>"  # noqa: S105  a user name by which helpers say that the secret is an identity token
# Names that say what a secret is where it is no password, with Docker's fields for such; the registry crate knows both.
TOKENS = {TOKEN_USER: "identitytoken", "<registry-token>": "registrytoken"}
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Credential(NamedTuple):
    """A user name and a password; with a user name of `TOKENS` the password is a token."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credential({self.username!r}, ...)"


ANONYMOUS = Credential("", "")  # somebody said that there are none, which is more than saying nothing


def config_path(environment: dict[str, str] | None = None) -> str:
    """Where the docker configuration of this user is."""
    values = os.environ if environment is None else environment
    directory = values.get("DOCKER_CONFIG") or os.path.join(values.get("HOME") or os.path.expanduser("~"), ".docker")
    return os.path.join(directory, "config.json")


def lookup(host: str, path: str | None = None) -> Credential | None:
    """The credential configured for a registry's host ("docker.io", "quay.io:443"); None for anonymous.

    InvalidArgument where the configuration is malformed, Unavailable where a helper fails.
    """
    config = read_config(path or config_path())
    server = DOCKER_HUB if host in {"docker.io", "index.docker.io", "registry-1.docker.io"} else host
    where = path or config_path()
    helper = helper_for(config, server, where) or helper_for(config, host, where)
    if helper:
        found = _ask_helper(helper, server, where)
        if found is not None:
            return found
    auths = _object(config.get("auths"), where, "auths")
    for key, entry in auths.items():
        if key in {server, host} or (server != DOCKER_HUB and _host_of(key) == host):
            return from_object(_object(entry, where, f"auths of {key}"), f"{where}: auths of {key}")
    return None


def helper_for(config: dict[str, Any], server: str, where: str) -> str:
    """The name of the helper program that keeps a server's credentials; empty for none. InvalidArgument."""
    helpers = _object(config.get("credHelpers"), where, "credHelpers")
    name = helpers.get(server) or config.get("credsStore") or ""
    if name and (not isinstance(name, str) or not _HELPER.fullmatch(name)):
        raise InvalidArgument(f"{where}: {name!a} cannot be the name of a credential helper")
    return name


def encode_header(credential: Credential, host: str) -> str:
    """The value of X-Registry-Auth: base64url of Docker's AuthConfig object."""
    entry = {"serveraddress": DOCKER_HUB if host == "docker.io" else host}
    if credential.username in TOKENS:
        entry[TOKENS[credential.username]] = credential.password
    else:
        entry["username"], entry["password"] = credential
    return base64.urlsafe_b64encode(json.dumps(entry).encode()).decode()


def decode_header(value: str) -> Credential | None:
    """The credential in an X-Registry-Auth header: None where there is no header, ANONYMOUS where it holds none.

    InvalidArgument where it is malformed.
    """
    if not value.strip():
        return None
    if len(value) > MAX_HEADER:
        raise InvalidArgument("invalid X-Registry-Auth header: too long")
    try:
        entry = json.loads(_decode_base64(value.strip(), urlsafe=True))
    except (ValueError, RecursionError):
        raise InvalidArgument("invalid X-Registry-Auth header: it is not base64url of a JSON object") from None
    if not isinstance(entry, dict):
        raise InvalidArgument("invalid X-Registry-Auth header: it does not hold an object")
    return from_object(entry, "invalid X-Registry-Auth header") or ANONYMOUS


def from_object(entry: dict[str, Any], where: str) -> Credential | None:
    """Docker's AuthConfig: identitytoken, registrytoken, username and password, or both joined in `auth`."""
    fields = {}
    for name in ("username", "password", "auth", "identitytoken", "registrytoken"):
        value = entry.get(name) or ""
        if not isinstance(value, str) or "\0" in value:
            raise InvalidArgument(f"{where}: {name} is not a string")
        fields[name] = value
    for user, name in TOKENS.items():
        if fields[name]:
            return Credential(user, fields[name])
    if fields["username"]:
        return Credential(fields["username"], fields["password"])
    if fields["auth"]:
        try:
            text = _decode_base64(fields["auth"], urlsafe=False).decode()
        except ValueError:
            raise InvalidArgument(f"{where}: auth is not base64 of user:password") from None
        username, colon, password = text.partition(":")
        if not colon:
            raise InvalidArgument(f"{where}: auth is not base64 of user:password")
        return Credential(username, password.rstrip("\0"))
    return None


def _decode_base64(text: str, *, urlsafe: bool) -> bytes:
    """Padding may be missing. ValueError."""
    padded = text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4)
    try:
        return base64.b64decode(padded.encode("ascii"), b"-_" if urlsafe else None, validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(str(error)) from None


def read_config(path: str) -> dict[str, Any]:
    """The docker configuration; empty where there is none. InvalidArgument where it is malformed."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_CONFIG + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InvalidArgument(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_CONFIG:
        raise InvalidArgument(f"{path} is larger than {MAX_CONFIG} bytes: it is not a docker configuration")
    if not data.strip():
        return {}
    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidArgument(f"{path} is not valid JSON: correct or remove it") from None
    return _object(config, path, "the configuration")


def _object(value: Any, path: str, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument(f"{path}: {name} is not a JSON object")
    return value


def _host_of(key: str) -> str:
    """The host in a key of `auths`, which may be a URL: "https://quay.io/v1/" is "quay.io"."""
    return key.removeprefix("https://").removeprefix("http://").split("/", 1)[0]


def _ask_helper(name: Any, server: str, where: str) -> Credential | None:
    """Run docker-credential-NAME get. None where it has nothing for this server."""
    import subprocess

    if not isinstance(name, str) or not _HELPER.fullmatch(name):
        raise InvalidArgument(f"{where}: {name!a} cannot be the name of a credential helper")
    program = f"docker-credential-{name}"
    try:
        done = subprocess.run(
            [program, "get"], input=server.encode(), capture_output=True, timeout=HELPER_SECONDS, check=False
        )
    except OSError as error:
        raise Unavailable(f"cannot run {program}, which {where} names: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{program} did not answer within {HELPER_SECONDS:.0f} s for {server}") from None
    output = done.stdout[:MAX_HELPER_OUTPUT]
    if done.returncode:
        text = output.decode("utf-8", "replace").strip()
        if "credentials not found" in text:
            return None
        message = text or done.stderr[-200:].decode("utf-8", "replace").strip() or f"exit status {done.returncode}"
        raise Unavailable(f"{program} failed for {server}: {message[:200]}")
    try:
        answer = json.loads(output)
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise Unavailable(f"{program} gave no credential that can be read for {server}") from None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise Unavailable(f"{program} gave no credential that can be read for {server}")
    return Credential(username, secret) if username or secret else None
