"""Help pages and completion in shells: click, built from the tables of options.

Only this module imports click. What click would parse, `knarr.cli.command.parse` parses: `Verb.parse_args` hands it
over, so there is one grammar.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from knarr.cli import completion, index
from knarr.cli.command import FLAG, LIST, Command, HelpWanted, Option, UsageError, nearest, parse
from knarr.cli.terminal import say

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_WIDTH = 100
_SUMMARY = "A fast container engine that speaks Docker's API."


def _decoration(option: Option) -> list[str]:
    """The declaration of an option for click."""
    return [option.key + "_" if not option.key.isidentifier() else option.key, *option.flags]


def click_option(option: Option) -> click.Option:
    """The click option of a table's row."""
    text = option.help
    if option.default not in (None, False, "", 0, -1) and option.kind not in (FLAG, LIST):
        text += f" (default {option.default})"
    return click.Option(
        _decoration(option),
        is_flag=option.kind == FLAG,
        multiple=option.kind == LIST,
        metavar=None if option.kind == FLAG else option.kind,
        default=option.default if option.kind == FLAG else None,
        help=text,
        hidden=option.hidden,
        shell_complete=lambda ctx, _param, start: completion.option(option.flags, _host(ctx), start),
    )


class Names(click.Argument):
    """An argument that names objects of the engine."""

    def __init__(self, command: Command) -> None:
        super().__init__(["arguments"], nargs=-1, metavar=command.arguments)
        self._command = command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What it may be next."""
        given = ctx.params.get("arguments") or ()
        return completion.arguments(self._command, given, ctx.params, _host(ctx), incomplete)


def _host(ctx: click.Context) -> str | None:
    found = ctx.find_root().params.get("host")
    return str(found) if found else None


class Verb(click.Command):
    """A command of the tables as a click command."""

    def __init__(self, command: Command, name: str) -> None:
        self.source = command
        params: list[click.Parameter] = [click_option(option) for option in command.options]
        if command.arguments:
            params.append(Names(command))
        super().__init__(
            name,
            params=params,
            help=command.help,
            epilog=f"Example: {command.example}",
            options_metavar="[OPTIONS]" if command.options else "",
            callback=lambda **_: None,
            context_settings={"allow_interspersed_args": not command.tail, "help_option_names": ["--help"]},
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments by our own grammar; while a shell completes, as far as they can be read."""
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        try:
            options, arguments = parse(self.source, args)
        except HelpWanted:
            click.echo(ctx.get_help())
            ctx.exit(0)
        except UsageError as error:
            raise click.UsageError(str(error), ctx) from error
        ctx.params.update(options, arguments=tuple(arguments))
        return []

    def get_usage(self, ctx: click.Context) -> str:
        """One line, never wrapped: people copy it."""
        return f"Usage: {ctx.find_root().info_name} {self.source.usage().removeprefix('knarr ')}"


class Nouns(click.Group):
    """A group whose verbs are imported when they are asked for."""

    def __init__(self, name: str, table: dict[str, str], **settings: Any) -> None:
        super().__init__(name, **settings)
        self._table = table

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """The verbs, without the second names of some."""
        first: dict[str, str] = {}
        for verb, where in self._table.items():
            first.setdefault(where, verb)
        groups = list(index.GROUPS) if self._table is index.COMMANDS else []
        return [*first.values(), *groups]

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them."""
        if cmd_name in self._table:
            return Verb(index.load(self._table[cmd_name]), cmd_name)
        if self._table is index.COMMANDS and cmd_name in index.GROUPS:
            return Nouns(cmd_name, index.GROUPS[cmd_name], help=index.GROUP_HELP[cmd_name], no_args_is_help=True)
        return None


def root() -> Nouns:
    """The whole command line."""
    return Nouns(
        "knarr",
        index.COMMANDS,
        help=_SUMMARY,
        epilog="`knarr VERB --help` says more of a verb. "
        'Completion: eval "$(_KNARR_COMPLETE=bash_source knarr)" (or zsh, fish).',
        params=[
            click.Option(["host", "-H", "--host"], metavar="string", help="Engine to talk to (default $KNARR_HOST)"),
            click.Option(["debug", "-D", "--debug"], is_flag=True, help="Show where in the program errors come from"),
            click.Option(["tls", "--tls"], is_flag=True, help="Use TLS; implied by --tlsverify"),
            click.Option(["tlsverify", "--tlsverify"], is_flag=True, help="Use TLS and verify the engine"),
            *(
                click.Option([name, f"--{name}"], metavar="string", help=f"{what} (default ~/.docker/{file})")
                for name, what, file in (
                    ("tlscacert", "Trust only certificates that this one signed", "ca.pem"),
                    ("tlscert", "This client's certificate", "cert.pem"),
                    ("tlskey", "The key of its certificate", "key.pem"),
                )
            ),
            click.Option(["version", "-v", "--version"], is_flag=True, help="Show the version"),
        ],
    )


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    return click.Context(command, info_name=name, parent=parent, terminal_width=_width(), max_content_width=_WIDTH)


def _width() -> int:
    try:
        return min(_WIDTH, os.get_terminal_size().columns)
    except OSError:
        return _WIDTH


def page(command: Command) -> int:
    """The help page of a command."""
    top = _context(root(), "knarr")
    verb = Verb(command, command.name)
    click.echo(_context(verb, command.name, top).get_help())
    return 0


def group(name: str, rest: list[str]) -> int:
    """The help page of a noun, which is also the answer to a verb that it does not have."""
    top = _context(root(), "knarr")
    verbs = top.command.get_command(top, name) if isinstance(top.command, click.Group) else None
    assert verbs is not None  # the caller found the name among the groups
    if rest and rest[0] not in ("--help", "-h"):
        meant = nearest(rest[0], index.GROUPS[name])
        say(f"knarr: {rest[0]!r} is not a verb of {name!r}{meant}\n\nSee 'knarr {name} --help'.")
        return 1
    click.echo(_context(verbs, name, top).get_help(), err=not rest)
    return 0


def show(words: list[str]) -> int:
    """The first page, or that of `knarr help VERB`; or, when a shell asks, what could come next."""
    if "_KNARR_COMPLETE" in os.environ:
        return _complete(os.environ["_KNARR_COMPLETE"])
    if words:
        name, command, rest = index.find(words)
        if command is not None:
            return page(command)
        if name in index.GROUPS:
            return group(name, rest)
        say(f"knarr: {name!r} is not a knarr command\n\nSee 'knarr --help'.")
        return 1
    click.echo(_context(root(), "knarr").get_help())
    return 0


def _complete(instruction: str) -> int:
    from click.shell_completion import shell_complete

    return shell_complete(root(), {}, "knarr", "_KNARR_COMPLETE", instruction)
