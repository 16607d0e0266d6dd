"""The parser of the command line: Docker's grammar, and click's where both have a word for the same."""

import click
import pytest

from knarr.cli import help as pages
from knarr.cli import index
from knarr.cli.command import FLAG, INT, LIST, TEXT, Command, HelpWanted, Option, UsageError, parse

OPTIONS = (
    Option("-i --interactive", FLAG, "x"),
    Option("-t --tty", FLAG, "x"),
    Option("--proxy", FLAG, "x", default=True),
    Option("--init", FLAG, "x", default=None),
    Option("-n --name", TEXT, "x"),
    Option("--pull", TEXT, "x", default="missing"),
    Option("-e --env", LIST, "x"),
    Option("--count", INT, "x", default=0),
    Option("--net", LIST, "x", key="network", hidden=True),
    Option("--network", LIST, "x"),
)
TAIL = Command(
    "tail", lambda *_: 0, text="x", example="x", usage="IMAGE [ARG...]", minimum=1, tail=True, options=OPTIONS
)
PLAIN = Command("plain", lambda *_: 0, text="x", example="x", usage="NAME [NAME...]", minimum=1, options=OPTIONS)
DEFAULTS = {
    "interactive": False,
    "tty": False,
    "proxy": True,
    "init": None,
    "name": None,
    "pull": "missing",
    "env": [],
    "count": 0,
    "network": [],
}


@pytest.mark.parametrize(
    ("given", "options", "arguments"),
    [
        (["img"], {}, ["img"]),
        (["-it", "img", "-x", "--name", "y"], {"interactive": True, "tty": True}, ["img", "-x", "--name", "y"]),
        (["-i", "-t", "img"], {"interactive": True, "tty": True}, ["img"]),
        (["--name", "a", "img"], {"name": "a"}, ["img"]),
        (["--name=a=b", "img"], {"name": "a=b"}, ["img"]),
        (["--name=", "img"], {"name": ""}, ["img"]),
        (["-n", "a", "img"], {"name": "a"}, ["img"]),
        (["-na", "img"], {"name": "a"}, ["img"]),
        (["-n=a", "img"], {"name": "a"}, ["img"]),
        (["-itn", "a", "img"], {"interactive": True, "tty": True, "name": "a"}, ["img"]),
        (["-e", "A=1", "--env", "B", "--env=C=", "img"], {"env": ["A=1", "B", "C="]}, ["img"]),
        (["--name", "--weird", "img"], {"name": "--weird"}, ["img"]),
        (
            ["--proxy=false", "--init=false", "-i=true", "img"],
            {"proxy": False, "init": False, "interactive": True},
            ["img"],
        ),
        (["--init", "img"], {"init": True}, ["img"]),
        (["--count", "-1", "img"], {"count": -1}, ["img"]),
        (["--net", "a", "--network", "b", "img"], {"network": ["a", "b"]}, ["img"]),
        (["--", "-i", "img"], {}, ["-i", "img"]),
        (["img", "--", "-i"], {}, ["img", "--", "-i"]),
        (["-"], {}, ["-"]),
    ],
)
def test_what_is_read(given, options, arguments):
    assert parse(TAIL, given) == ({**DEFAULTS, **options}, arguments)


def test_options_may_follow_arguments_where_no_other_command_line_does():
    assert parse(PLAIN, ["a", "-i", "b", "--", "-t"]) == ({**DEFAULTS, "interactive": True}, ["a", "b", "-t"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--nope"], "unknown flag: --nope"),
        (["--nope=1"], "unknown flag: --nope"),
        (["--nmae=x"], "unknown flag: --nmae; did you mean --name?"),
        (["-iz"], "unknown shorthand flag: 'z' in -iz"),
        (["--name"], "flag needs an argument: --name"),
        (["-in"], "flag needs an argument: 'n' in -in"),
        (["--tty=maybe", "img"], "invalid argument 'maybe' for -t, --tty: 'maybe' is neither true nor false"),
        (["--count", "x", "img"], "invalid argument 'x' for --count: 'x' is not a whole number"),
        ([], "'knarr tail' requires at least 1 argument"),
    ],
)
def test_what_is_refused(given, message):
    with pytest.raises(UsageError) as caught:
        parse(TAIL, given)
    assert str(caught.value).startswith(message)
    assert caught.value.command is TAIL


@pytest.mark.parametrize("given", [["--help"], ["-i", "--help"], ["-h"]])
def test_help_is_asked_for(given):
    with pytest.raises(HelpWanted):
        parse(TAIL, given)


@pytest.mark.parametrize("given", [["img", "--help"], ["--name", "--help", "img"]])
def test_help_of_the_other_program_is_not_ours(given):
    assert parse(TAIL, given)


def every_command():
    tables = [index.COMMANDS, *index.GROUPS.values()]
    return sorted({where for table in tables for where in table.values()})


@pytest.mark.parametrize("where", every_command())
def test_every_table_makes_a_command(where):
    command = index.load(where)
    assert command.help
    assert command.example.startswith("knarr ")
    assert command.example.split()[1] in command.name or command.name.split()[0] in command.example
    spellings = [flag for option in command.options for flag in option.flags]
    assert len(spellings) == len(set(spellings))
    keys = {option.key: option.kind for option in command.options}
    assert all(keys[option.key] == option.kind for option in command.options)
    parse(
        command, command.example.replace("'", "").split()[1 + len(command.name.split()) :]
    ) if "'" not in command.example else None


# Arguments that both grammars read: click has no --flag=false, no -n=value, and no word for an option's several spellings.
BOTH = [
    (PLAIN, ["a"]),
    (PLAIN, ["a", "b", "-i"]),
    (PLAIN, ["-it", "a"]),
    (PLAIN, ["--name", "x", "a", "--env", "A=1", "-eB=2", "--env=C"]),
    (PLAIN, ["-nx", "a", "--", "-i"]),
    (PLAIN, ["-itn", "x", "a"]),
    (TAIL, ["-i", "img", "-t", "--name", "x"]),
    (TAIL, ["--name=x=y", "img", "--", "x"]),
    (TAIL, ["--", "-img"]),
    (TAIL, ["--pull", "never", "img"]),
]


@pytest.mark.parametrize(("command", "given"), BOTH)
def test_click_reads_the_same(command, given):
    ours, arguments = parse(command, given)
    verb = pages.Verb(command, command.name)
    context = click.Context(verb, info_name=command.name, **verb.context_settings)
    click.Command.parse_args(verb, context, list(given))
    theirs = context.params
    for option in command.options:
        if option.hidden:
            continue
        value = list(theirs[option.key]) if option.kind == LIST else theirs[option.key]
        expected = ours[option.key]
        if value is None:
            value = option.default
        assert value == expected, option.key
    assert list(theirs["arguments"]) == arguments


@pytest.mark.parametrize(("command", "given"), BOTH)
def test_the_click_command_has_our_grammar(command, given):
    verb = pages.Verb(command, command.name)
    context = verb.make_context(command.name, list(given))
    ours, arguments = parse(command, given)
    assert context.params == {**ours, "arguments": tuple(arguments)}


def test_completion_offers_options_and_verbs():
    from click.shell_completion import ShellComplete

    complete = ShellComplete(pages.root(), {}, "knarr", "_KNARR_COMPLETE")
    assert "run" in [item.value for item in complete.get_completions([], "ru")]
    assert "--network" in [item.value for item in complete.get_completions(["run"], "--net")]
    assert "--net" not in [item.value for item in complete.get_completions(["run"], "--net")]
    assert "prune" in [item.value for item in complete.get_completions(["container"], "")]
