"""`knarr login`, `knarr logout`, `knarr search`: registries that are spoken to by name."""

import sys

from knarr.cli import terminal
from knarr.cli.command import FLAG, INT, LIST, TEXT, Command, Option
from knarr.cli.terminal import say, show
from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from knarr.client import Client
    from knarr.credentials import Credential

_STDIN = "-"  # in place of a password: it comes on stdin
HUB = "https://index.docker.io/v1/"
MAX_SECRET = 64 << 10
SEARCH_HEADERS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
    "IsAutomated": "AUTOMATED",
}


def _server(arguments: "list[str]") -> "tuple[str, str]":
    """(the key under which its credentials are kept, its host) of what was named; Docker Hub where nothing was."""
    given = arguments[0] if arguments else "docker.io"
    host = given.removeprefix("https://").removeprefix("http://").partition("/")[0]
    if host in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        return HUB, "docker.io"
    if not host:
        raise InvalidArgument(f"{given!r} names no registry: write its host, such as registry.example.com:5000")
    return host, host


def _login(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    from knarr import credentials

    server, host = _server(arguments)
    username, password = options["username"], options["password"]
    from_stdin = options["password_stdin"] or password == _STDIN
    if password is not None and password != _STDIN:
        say("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
        if options["password_stdin"]:
            raise InvalidArgument("conflicting options: cannot specify both --password and --password-stdin")
    if from_stdin:
        if not username:
            raise InvalidArgument("the --password-stdin option requires --username to be set")
        password = _from_stdin()
    known = credentials.lookup(host) if not username and password is None else None
    if known is not None:
        of = "" if known.username == credentials.TOKEN_USER else f" [Username: {known.username}]"
        say(f"Authenticating with existing credentials...{of}")
        say("\nInfo -> To login with a different account, run 'knarr logout' followed by 'knarr login'\n")
        client.login(server, known)
        show("Login Succeeded")
        return 0
    username, password = _asked(username, password)
    given = credentials.Credential(username, password)
    token = client.login(server, given).get("IdentityToken") or ""
    _keep(server, credentials.Credential(credentials.TOKEN_USER, token) if token else given, username)
    show("Login Succeeded")
    return 0


def _from_stdin() -> str:
    text = sys.stdin.buffer.read(MAX_SECRET + 1)
    if len(text) > MAX_SECRET:
        raise InvalidArgument(f"a password of more than {MAX_SECRET} bytes is refused")
    try:
        secret = text.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise InvalidArgument("the password is not text") from None
    if not secret:
        raise InvalidArgument("password is empty")
    return secret


def _asked(username: "str | None", password: "str | None") -> "tuple[str, str]":
    """What was not given is asked for on the terminal; a password is not echoed."""
    if username and password:
        return username, password
    username, password = username or "", password or ""
    if not terminal.is_terminal(terminal.STDIN):
        raise InvalidArgument("cannot perform an interactive login from a non-TTY device")
    import getpass

    try:
        if not username:
            print("Username: ", end="", flush=True)
            username = sys.stdin.readline().strip()
            if not username:
                raise InvalidArgument("username is empty")
        if not password:
            password = getpass.getpass("Password: ")
    except EOFError:
        password = ""
    if not password:
        raise InvalidArgument("password is empty")
    return username, password


def _keep(server: str, credential: "Credential", username: str) -> None:
    from knarr import credentials
    from knarr.cli import docker_config

    if docker_config.store(server, credential, username):
        say(f"\nWARNING! Your credentials are stored unencrypted in '{credentials.config_path()}'.")
        say("Configure a credential helper to remove this warning. See")
        say("https://docs.docker.com/go/credential-store/\n")


def _logout(_client: "Client", _options: "dict[str, Any]", arguments: "list[str]") -> int:
    from knarr.cli import docker_config

    server, _ = _server(arguments)
    show(f"Removing login credentials for {server}")
    docker_config.erase(server)
    return 0


def _search(client: "Client", options: "dict[str, Any]", arguments: "list[str]") -> int:
    from knarr.cli import human
    from knarr.cli.listing import filters, write
    from knarr.cli.transfer import credentials

    term = arguments[0]
    found = client.images.search(
        term, limit=options["limit"], filters=filters(options["filter"]), auth=credentials(term)
    )
    rows = []
    for item in found:
        description = " ".join((item.get("description") or "").split())
        rows.append(
            {
                "Name": item["name"],
                "Description": description if options["no_trunc"] else human.shorten(description, 45),
                "StarCount": str(item.get("star_count") or 0),
                "IsOfficial": "[OK]" if item.get("is_official") else "",
                "IsAutomated": "",
            }
        )
    write(rows, SEARCH_HEADERS, ["Name", "Description", "StarCount", "IsOfficial"], options["format"])
    return 0


LOGIN = Command(
    "login",
    _login,
    text="Log in to a registry (Docker Hub where none is named)",
    usage="[SERVER]",
    example="knarr login -u me registry.example.com",
    maximum=1,
    options=(
        Option("-p --password", TEXT, 'Password or access token, or "-" to read it from stdin'),
        Option("--password-stdin", FLAG, "Read the password or access token from stdin"),
        Option("-u --username", TEXT, "User name"),
    ),
)
LOGOUT = Command(
    "logout",
    _logout,
    text="Forget the credentials for a registry (Docker Hub where none is named)",
    usage="[SERVER]",
    example="knarr logout registry.example.com",
    maximum=1,
)
SEARCH = Command(
    "search",
    _search,
    text="Search Docker Hub, or a registry that has a search, for images",
    usage="TERM",
    example="knarr search --filter is-official=true --limit 5 debian",
    minimum=1,
    maximum=1,
    options=(
        Option("-f --filter", LIST, "Only those that match (is-official=true, stars=100)"),
        Option("--format", TEXT, "Format: table, json, or a Go template"),
        Option("--limit", INT, "Max number of results"),
        Option("--no-trunc", FLAG, "Don't cut long values"),
    ),
)
