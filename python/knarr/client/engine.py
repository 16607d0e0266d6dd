"""Client: one engine, its connections, and its errors by HTTP status.

Connections are opened when needed, kept while idle and used again; a Client may be used by one thread at a time.
"""

import os

from knarr import errors
from knarr.client.codec import dumps, loads
from knarr.client.http import Connection, Response, query
from knarr.client.launch import connect_or_start, default_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, NoReturn

    from typing_extensions import Self

    from knarr.client.containers import Containers
    from knarr.client.execs import Execs
    from knarr.client.images import Images
    from knarr.client.networks import Networks
    from knarr.client.system import System
    from knarr.client.tls import Tls
    from knarr.client.volumes import Volumes
    from knarr.credentials import Credential

    Parameters = Mapping[str, str | int | bool | None]  # of a query; None, False and "" are left out
    Objects = list[dict[str, Any]]
    Filters = dict[str, list[str]]

API_VERSION = "1.51"

_ERRORS: "dict[int, type[errors.KnarrError]]" = {
    304: errors.NotModified,
    400: errors.InvalidArgument,
    401: errors.Unauthorized,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    409: errors.Conflict,
    501: errors.Unsupported,
    503: errors.Unavailable,
}


class Client:
    """A client of one engine.

    host: "unix:///path" or "tcp://name:port"; by default $KNARR_HOST, or the daemon of this environment's run root
    ($KNARR_RUN_ROOT, /run/knarr), which is started when nothing listens there. tls: how to speak it over TCP; by
    default with the files in $KNARR_CERT_PATH where $KNARR_TLS_VERIFY or $KNARR_TLS is set.
    """

    containers: "Containers"
    execs: "Execs"
    images: "Images"
    networks: "Networks"
    volumes: "Volumes"
    system: "System"

    def __init__(self, host: "str | None" = None, tls: "Tls | None" = None) -> None:
        self.host = host or os.environ.get("KNARR_HOST") or default_host()
        self.tls = tls
        if tls is None and (os.environ.get("KNARR_TLS_VERIFY") or os.environ.get("KNARR_TLS")):
            from knarr.client.tls import Tls

            self.tls = Tls(verify=bool(os.environ.get("KNARR_TLS_VERIFY")))
        self._idle: list[Connection] = []

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, noun: str) -> "Any":
        """Import a noun when it is first asked for."""
        value: Any
        if noun == "containers":
            from knarr.client.containers import Containers

            value = Containers(self)
        elif noun == "execs":
            from knarr.client.execs import Execs

            value = Execs(self)
        elif noun == "images":
            from knarr.client.images import Images

            value = Images(self)
        elif noun == "networks":
            from knarr.client.networks import Networks

            value = Networks(self)
        elif noun == "volumes":
            from knarr.client.volumes import Volumes

            value = Volumes(self)
        elif noun == "system":
            from knarr.client.system import System

            value = System(self)
        else:
            raise AttributeError(noun)
        setattr(self, noun, value)
        return value

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    # Requests

    def send(
        self,
        method: str,
        path: str,
        parameters: "Parameters | None" = None,
        body: "object | Iterable[bytes] | None" = None,
        headers: "dict[str, str] | None" = None,
        version: "str | None" = None,
    ) -> Connection:
        """Send a request and return its connection, for `receive`; others may be sent in between.

        body: dicts and lists go as JSON; bytes, and iterables of bytes, as they are.
        """
        if isinstance(body, (dict, list)):
            body = dumps(body)
            headers = {**(headers or {}), "Content-Type": "application/json"}
        connection = self._connection()
        target = f"/v{version or API_VERSION}{path}{query(parameters) if parameters else ''}"
        try:
            connection.send(method, target, body, headers)  # type: ignore[arg-type]
        except BaseException:
            connection.close()
            raise
        return connection

    def receive(self, connection: Connection) -> Response:
        """The response to what was sent on a connection. Raises knarr.errors for status 304 and from 400 on."""
        try:
            response = connection.response()
        except BaseException:
            connection.close()
            raise
        response.on_done = self._release
        if response.status == 304 or response.status >= 400:
            _raise(response)
        return response

    def request(
        self,
        method: str,
        path: str,
        parameters: "Parameters | None" = None,
        body: "object | Iterable[bytes] | None" = None,
        headers: "dict[str, str] | None" = None,
        version: "str | None" = None,
    ) -> Response:
        """Send a request and wait for the head of its response.

        A GET that met a connection just as the engine gave it up for idle is sent once more (RFC 9112, section 9.3.1).
        """
        connection = self.send(method, path, parameters, body, headers, version)
        try:
            return self.receive(connection)
        except errors.Unavailable:
            if method != "GET" or connection.requests == 1 or connection.answered:
                raise
        self.close()
        return self.receive(self.send(method, path, parameters, body, headers, version))

    def call(
        self,
        method: str,
        path: str,
        parameters: "Parameters | None" = None,
        body: object = None,
    ) -> "Any":
        """Send a request; the JSON of its response, or None."""
        return self.request(method, path, parameters, body).json()

    def send_upgrade(self, path: str, parameters: "Parameters | None" = None, body: object = None) -> Connection:
        """Ask for a connection to be handed over (Engine API, ContainerAttach: "Hijacking")."""
        return self.send("POST", path, parameters, body, {"Connection": "Upgrade", "Upgrade": "tcp"})

    def receive_upgrade(self, connection: Connection) -> Connection:
        """The connection that was handed over: `take()` reads what the container says, `socket` is for the rest."""
        self.receive(connection)
        return connection

    def _connection(self) -> Connection:
        while True:
            try:  # one step: the handler of a signal may use this client in between any two
                connection = self._idle.pop()
            except IndexError:
                return connect_or_start(self.host, self.tls)
            if not connection.stale():
                return connection
            connection.close()

    def _release(self, response: Response) -> None:
        if response.reusable:
            self._idle.append(response.connection)
        else:
            response.connection.close()

    # The engine itself

    def ping(self) -> None:
        """Return when the engine answers."""
        self.request("GET", "/_ping").read()

    def version(self) -> "dict[str, Any]":
        """SystemVersion: Version, ApiVersion, Os, Arch, KernelVersion, Components."""
        return self.call("GET", "/version")  # type: ignore[no-any-return]

    def login(self, server: str, credential: "Credential") -> "dict[str, Any]":
        """SystemAuth: {"Status", "IdentityToken"} where the registry takes the credential. Unauthorized."""
        body = {"serveraddress": server, **auth_config(credential)}
        return self.call("POST", "/auth", None, body)  # type: ignore[no-any-return]

    def info(self) -> "dict[str, Any]":
        """SystemInfo."""
        return self.call("GET", "/info")  # type: ignore[no-any-return]


def auth_config(credential: "Credential") -> "dict[str, str]":
    """The fields of an AuthConfig: a user name "<token>" says that the password is an identity token."""
    if credential.username == "<token>":
        return {"identitytoken": credential.password}
    return {"username": credential.username, "password": credential.password}


def encode_filters(given: "Filters | None") -> "str | None":
    """The API's form of filters: {"name": ["a", "b"]} as JSON."""
    return dumps(given).decode() if given else None


def _raise(response: Response) -> "NoReturn":
    body = response.read()
    try:
        message = loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        message = body[:500].decode(errors="replace").strip() or f"the engine answered with status {response.status}"
    kind = _ERRORS.get(response.status)
    if kind is None:
        kind = errors.InvalidArgument if response.status < 500 else errors.Internal
    raise kind(message)
