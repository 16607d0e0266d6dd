"""The docker configuration of this user as a keeper of credentials: a helper program where one is named, else the file.

The file is changed as docker changes it: read anew, everything else in it kept, written beside it with mode 0600 and
renamed into place, so that nobody ever reads half of it. Where it is a link, what it leads to is replaced.
"""

import json
import os

from knarr import credentials
from knarr.errors import InvalidArgument, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.credentials import Credential


def store(server: str, credential: "Credential", username: str) -> bool:
    """Keep a credential for a server; whether it went into the file, unencrypted.

    server: "quay.io:443", or Docker Hub's own key. username: whose it is, also where the credential is a token.
    """
    path = credentials.config_path()
    config = credentials.read_config(path)
    helper = credentials.helper_for(config, server, path)
    if helper:
        entry = {"ServerURL": server, "Username": credential.username, "Secret": credential.password}
        _run(helper, "store", json.dumps(entry), server)
        if server in (config.get("auths") or {}):  # what an earlier login without a helper had left
            config["auths"][server] = {}
            _write(path, config)
        return False
    import base64

    auths = config.setdefault("auths", {})
    password = "" if credential.username == credentials.TOKEN_USER else credential.password
    auths[server] = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
    if credential.username == credentials.TOKEN_USER:
        auths[server]["identitytoken"] = credential.password
    _write(path, config)
    return True


def erase(server: str) -> None:
    """Forget the credential for a server; one that is not there is no error."""
    path = credentials.config_path()
    config = credentials.read_config(path)
    helper = credentials.helper_for(config, server, path)
    if helper:
        _run(helper, "erase", server, server)
    auths = config.get("auths") or {}
    if server in auths:
        del auths[server]
        _write(path, config)


def _run(helper: str, verb: str, data: str, server: str) -> None:
    import subprocess

    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, verb], input=data.encode(), capture_output=True, timeout=30, check=False)
    except OSError as error:
        raise Unavailable(f"cannot run {program}: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{program} {verb} did not answer within 30 s for {server}") from None
    if done.returncode and not (verb == "erase" and b"credentials not found" in done.stdout):
        message = (done.stdout or done.stderr)[:200].decode("utf-8", "replace").strip()
        raise Unavailable(f"{program} {verb} failed for {server}: {message or f'exit status {done.returncode}'}")


def _write(path: str, config: "dict[str, Any]") -> None:
    target = os.path.realpath(path)
    partial = f"{target}.knarr-{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(config, file, indent="\t", ensure_ascii=False)
                file.flush()
                os.fsync(file.fileno())
            if os.path.exists(target):
                known = os.stat(target)
                if (known.st_uid, known.st_gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
                    os.chown(partial, known.st_uid, known.st_gid)
            os.rename(partial, target)
        except BaseException:
            os.unlink(partial)
            raise
    except OSError as error:
        raise InvalidArgument(f"cannot write {target}: {error.strerror}") from error
