"""Commands as data, and the parser that reads a command line by them.

A Command names its options in a table. The table is the one source of truth: `parse` below reads arguments by it (it
is all that a usual command pays for: no click, no regular expressions), and `knarr.cli.help` builds the click
command from it that writes help pages and completes in shells.

The grammar is that of the docker command line (pflag): `--name value`, `--name=value`, `-n value`, `-nvalue`,
`-n=value`, `-it` for `-i -t`, `--flag=false`; `--` ends the options; and where a command is followed by another
program's own command line, so does the first argument that is no option.
"""

from knarr.cli import values
from knarr.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

# What an option holds; shown as its placeholder in help pages.
FLAG = "bool"
TEXT = "string"
LIST = "list"  # may be given several times
INT = "int"
BYTES = "bytes"  # 512m
DURATION = "duration"  # 1m30s, in nanoseconds
DECIMAL = "decimal"  # 1.5


_USUAL = object()


class UsageError(InvalidArgument):
    """The command line itself is wrong. `command` says whose help page would help."""

    command: "Command | None" = None
    exit_code = 125


class CountError(UsageError):
    """Too few arguments, or too many."""

    exit_code = 1


class OptionConflict(UsageError):
    """Options that exclude each other, or that do not fit the place where they were typed."""

    exit_code = 1


class HelpWanted(Exception):
    """--help was among the options."""


class Option:
    """One option of a command.

    flags: "-e --env", the short form first where there is one. default: what it holds when it isn't given.
    An option with the same key as another is another spelling of it.
    """

    __slots__ = ("default", "flags", "help", "hidden", "key", "kind")

    def __init__(
        self, flags: str, kind: str, text: str, *, default: "Any" = _USUAL, key: str = "", hidden: bool = False
    ) -> None:
        self.flags = flags.split()
        self.kind = kind
        self.help = text
        self.hidden = hidden
        self.key = key or self.flags[-1].lstrip("-").replace("-", "_")
        self.default = (False if kind == FLAG else None) if default is _USUAL else default

    def convert(self, text: str) -> "Any":
        """The value that a text stands for. InvalidArgument where it stands for none."""
        return _CONVERTERS[self.kind](text)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(f"{text!r} is not a whole number") from None


_CONVERTERS: "dict[str, Callable[[str], Any]]" = {
    FLAG: values.boolean,
    TEXT: str,
    LIST: str,
    INT: _integer,
    BYTES: values.size,
    DURATION: values.duration,
    DECIMAL: values.nano,
}


class Command:
    """One verb.

    usage: what follows the options. minimum, maximum: how many arguments. run: called with the client, the
    options by key, and the arguments; returns the exit code (None for 0). tail: whether the first
    argument ends the options.
    complete: what its arguments name, for shells: a word of `knarr.cli.completion` for all, or one for each.
    """

    __slots__ = (
        "_by_flag",
        "arguments",
        "complete",
        "example",
        "help",
        "maximum",
        "minimum",
        "name",
        "options",
        "run",
        "tail",
    )

    def __init__(
        self,
        name: str,
        run: "Callable[[Any, dict[str, Any], list[str]], int | None]",
        *,
        text: str,
        example: str,
        usage: str = "",
        minimum: int = 0,
        maximum: "int | None" = None,
        tail: bool = False,
        complete: "str | tuple[str, ...]" = "",
        options: "tuple[Option, ...]" = (),
    ) -> None:
        self.name = name
        self.run = run
        self.help = text
        self.example = example
        self.arguments = usage
        self.minimum = minimum
        self.maximum = maximum
        self.tail = tail
        self.complete = complete
        self.options = options
        self._by_flag: dict[str, Option] | None = None

    def usage(self) -> str:
        """The line of usage."""
        return " ".join(filter(None, ["knarr", self.name, "[OPTIONS]" if self.options else "", self.arguments]))

    def flags(self) -> "list[str]":
        """The long spellings of its options."""
        return [flag for option in self.options for flag in option.flags if flag.startswith("--")]

    def find(self, flag: str) -> "Option | None":
        """The option with this flag ("-e" or "--env")."""
        if self._by_flag is None:
            self._by_flag = {spelling: option for option in self.options for spelling in option.flags}
        return self._by_flag.get(flag)


def nearest(word: str, known: "Iterable[str]") -> str:
    """What to say after a word that nobody knows: the one it was perhaps meant to be, or nothing."""
    from difflib import get_close_matches

    found = get_close_matches(word, known, 1, 0.7)
    return f"; did you mean {found[0]}?" if found else ""


def parse(command: Command, given: "Sequence[str]") -> "tuple[dict[str, Any], list[str]]":
    """The options by key, all of them, and the arguments.

    UsageError where the command line is wrong, HelpWanted where it asks for help.
    """
    try:
        found, arguments = _scan(command, given)
        _count(command, arguments)
    except UsageError as error:
        error.command = command
        raise
    result: dict[str, Any] = {}
    for option in command.options:
        result.setdefault(option.key, [] if option.kind == LIST else option.default)
    result.update(found)
    return result, arguments


def _scan(command: Command, given: "Sequence[str]") -> "tuple[dict[str, Any], list[str]]":
    found: dict[str, Any] = {}
    arguments: list[str] = []
    index = 0
    while index < len(given):
        word = given[index]
        index += 1
        if word == "--":
            arguments += given[index:]
            break
        if not word.startswith("-") or word == "-":
            arguments.append(word)
            if command.tail:
                arguments += given[index:]
                break
        elif word.startswith("--"):
            flag, equals, value = word.partition("=")
            option = command.find(flag)
            if option is None:
                if word == "--help":
                    raise HelpWanted
                raise UsageError(f"unknown flag: {flag}{nearest(flag, command.flags())}")
            if not equals:
                if option.kind == FLAG:
                    value = "true"
                elif index < len(given):
                    value = given[index]
                    index += 1
                else:
                    raise UsageError(f"flag needs an argument: {flag}")
            _store(found, option, value)
        else:
            index = _cluster(command, word, given, index, found)
    return found, arguments


def _cluster(command: Command, word: str, given: "Sequence[str]", index: int, found: "dict[str, Any]") -> int:
    """Read "-it", "-p80:80", "-p=80:80" or "-p 80:80"; the index of the next word."""
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        option = command.find("-" + letter)
        if option is None:
            if word == "-h":
                raise HelpWanted
            raise UsageError(f"unknown shorthand flag: {letter!r} in {word}")
        if letters.startswith("="):
            _store(found, option, letters[1:])
            break
        if option.kind == FLAG:
            found[option.key] = True
        elif letters:
            _store(found, option, letters)
            break
        elif index < len(given):
            _store(found, option, given[index])
            return index + 1
        else:
            raise UsageError(f"flag needs an argument: {letter!r} in {word}")
    return index


def _store(found: "dict[str, Any]", option: Option, text: str) -> None:
    try:
        value = option.convert(text)
    except InvalidArgument as error:
        raise UsageError(f"invalid argument {text!r} for {', '.join(option.flags)}: {error}") from None
    if option.kind == LIST:
        found.setdefault(option.key, []).append(value)
    else:
        found[option.key] = value


def _count(command: Command, arguments: "list[str]") -> None:
    count = len(arguments)
    if count < command.minimum or (command.maximum is not None and count > command.maximum):
        if command.maximum == 0:
            wanted = "accepts no arguments"
        elif command.maximum == command.minimum:
            wanted = f"requires {_plural(command.minimum)}"
        elif count < command.minimum:
            wanted = f"requires at least {_plural(command.minimum)}"
        else:
            wanted = f"accepts at most {_plural(command.maximum or 0)}"
        raise CountError(f"'knarr {command.name}' {wanted}\n\nUsage:  {command.usage()}")


def _plural(count: int) -> str:
    return f"{count} argument{'' if count == 1 else 's'}"
