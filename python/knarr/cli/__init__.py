"""The knarr command line.

Start-up time is a feature: an interpreter starts in 9 ms, click's import takes 30 more. So a verb's options are a table
of data (command.py), read by a parser of our own; a verb imports what it uses; click comes in for help pages and for
completion in shells only, built from the same tables (help.py). Where things are:

    index.py                     which verb is in which module
    command.py values.py         tables of options, the parser, the notations of values
    container_options.py container_body.py mounts.py ports.py devices.py endpoints.py    `run` and `create`
    run.py execs.py session.py terminal.py signals.py    containers in the foreground
    pull.py progress.py load.py images.py lifecycle.py ps.py logs.py inspect.py ...    one module a few verbs
    template.py table.py human.py    --format, tables, sizes and times for people

Exit codes: the container's own where one was run; 125 where the command line or the engine failed `run`, 126 and 127
where its command couldn't be started; 1 for other verbs.
"""

import os
import sys

from knarr.errors import KnarrError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from knarr.cli.command import Command
    from knarr.client.tls import Tls

_INTERRUPTED = 130
_BROKEN_PIPE = 141
_TLS_FILES = {"--tlscacert": "ca", "--tlscert": "cert", "--tlskey": "key"}


def main() -> "NoReturn":
    """Run the command line of this process, and end it.

    The interpreter is left without tidying up: what there is to flush is flushed, and the rest is 1.3 ms.
    """
    code = execute(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _BROKEN_PIPE
    sys.stderr.flush()
    os._exit(code)


def execute(arguments: "list[str]") -> int:
    """Run a command line; its exit code."""
    try:
        return _execute(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone: as quiet as any other filter
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return _BROKEN_PIPE
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def _execute(arguments: "list[str]") -> int:
    host, debug, rest = None, False, list(arguments)
    tls: dict[str, str] = {}
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if flag in ("-H", "--host") or flag in _TLS_FILES:
            if not equals and not rest:
                return _complain(f"flag needs an argument: {flag}", "knarr --help")
            value = value if equals else rest.pop(0)
            if flag in _TLS_FILES:
                tls[flag] = value
            else:
                host = value
        elif flag in ("--tls", "--tlsverify"):
            tls[flag] = value if equals else "true"
        elif word in ("-v", "--version"):
            from knarr import __version__

            print(f"knarr version {__version__}")
            return 0
        elif word in ("-D", "--debug"):
            debug = True
        elif word in ("-h", "--help"):
            rest = ["--help", *rest]
            break
        else:
            return _complain(f"unknown flag: {flag}", "knarr --help")
    from knarr.cli import index

    if "_KNARR_COMPLETE" in os.environ or not rest or rest[0] in ("--help", "help"):
        from knarr.cli import help as pages

        return pages.show(rest[1:])
    name, command, rest = index.find(rest)
    if command is None:
        if name in index.GROUPS:
            from knarr.cli import help as pages

            return pages.group(name, rest)
        from knarr.cli.command import nearest

        meant = nearest(name, [*index.COMMANDS, *index.GROUPS])
        return _complain(f"{name!r} is not a knarr command{meant}", "knarr --help", code=1)
    if debug:
        return _run(command, host, tls, rest)
    try:
        return _run(command, host, tls, rest)
    except KnarrError as error:
        from knarr.cli.command import UsageError

        if isinstance(error, UsageError):
            see = f"knarr {(error.command or command).name} --help"
            return _complain(str(error), see, code=error.exit_code)
        return _complain(str(error), "", code=getattr(error, "exit_code", 1))


def _run(command: "Command", host: "str | None", tls: "dict[str, str]", rest: "list[str]") -> int:
    from knarr.cli.command import HelpWanted, parse

    try:
        options, positional = parse(command, rest)
    except HelpWanted:
        from knarr.cli import help as pages

        return pages.page(command)
    from knarr.client import Client

    with Client(host, _tls(tls) if tls else None) as client:
        return command.run(client, options, positional) or 0


def _tls(flags: "dict[str, str]") -> "Tls | None":
    """How to speak TLS by the flags, which need --tls or --tlsverify, or their like in the environment."""
    from knarr.cli.values import boolean
    from knarr.client.tls import Tls

    verify = boolean(flags["--tlsverify"]) if "--tlsverify" in flags else bool(os.environ.get("KNARR_TLS_VERIFY"))
    wanted = boolean(flags["--tls"]) if "--tls" in flags else bool(os.environ.get("KNARR_TLS"))
    if not wanted and not verify and "--tlsverify" not in flags:
        return None
    files = {name: flags.get(flag, "") for flag, name in _TLS_FILES.items()}
    return Tls(verify=verify, **files)


def _complain(message: str, see: str, code: int = 125) -> int:
    from knarr.cli.terminal import say

    say(f"knarr: {message}")
    if see:
        say(f"\nSee '{see}'.")
    return code
