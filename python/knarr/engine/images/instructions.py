r"""Instructions of a Dockerfile that change a config, as `commit --change` and `import --change` take them.

The notation is that of the Dockerfile reference: one instruction a line, `\` at a line's end goes on in the next, `#`
begins a comment; arguments are a JSON list or words; `$name` and `${name:-default}` stand for the config's
own variables.
"""

from __future__ import annotations

import json
import posixpath
import re
import signal
from typing import TYPE_CHECKING, Any

from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["apply"]

MAX_CHANGES = 1 << 20  # characters of all instructions
SHELL = ["/bin/sh", "-c"]
_VARIABLE = re.compile(r"\\(.)|\$(?:(\w+)|\{(\w+)(?::([-+?])((?:[^}\\]|\\.)*))?\})")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_SIGNALS = re.compile(r"[1-9]|[1-5][0-9]|6[0-4]|RTMIN(?:\+[0-9]{1,2})?|RTMAX(?:-[0-9]{1,2})?")

Config = dict[str, Any]


def apply(config: Config, changes: Sequence[str]) -> Config:
    """A config after some instructions; the one given stays as it is. InvalidArgument, in Docker's words."""
    found: Config = json.loads(json.dumps(config))
    text = "\n".join(changes)
    if len(text) > MAX_CHANGES:
        raise InvalidArgument(f"changes of {len(text)} characters are too many")
    state = _State(found)
    for name, rest in _lines(text):
        handler = _HANDLERS.get(name.lower())
        if handler is None:
            raise InvalidArgument(f"{name} is not a valid change command")
        handler(state, rest)
    return found


class _State:
    """A config that is being changed."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.command_given = False

    def expand(self, text: str) -> str:
        """Text with its variables replaced; quotes stay."""
        variables: dict[str, str] = dict(entry.partition("=")[::2] for entry in self.config.get("Env") or ())

        def value(match: re.Match[str]) -> str:
            escaped, plain, braced, operator, word = match.groups(default="")
            if escaped:
                return "$" if escaped == "$" else match.group()
            found = variables.get(plain or braced, "")
            if operator == "-":
                return found or word
            if operator == "+":
                return word if found else ""
            if operator == "?" and not found:
                raise InvalidArgument(f"{braced}: {word or 'parameter not set'}")
            return found

        return _VARIABLE.sub(value, text)


def _lines(text: str) -> list[tuple[str, str]]:
    found, pending = [], ""
    for line in text.split("\n"):
        stripped = line.strip()
        if stripped.startswith("#") or (not stripped and not pending):
            continue
        if stripped.endswith("\\"):
            pending += stripped[:-1] + " "
            continue
        name, _, rest = (pending + stripped).strip().partition(" ")
        pending = ""
        if name:
            found.append((name, rest.strip()))
    if pending.strip():
        name, _, rest = pending.strip().partition(" ")
        found.append((name, rest.strip()))
    if not found:
        raise InvalidArgument("file with no instructions")
    return found


def _json_list(text: str) -> list[str] | None:
    """A list of strings in JSON; None for anything else, which then is words."""
    if not text.startswith("["):
        return None
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, list) and all(isinstance(item, str) for item in parsed) else None


def _words(text: str, *, unquote: bool = True) -> list[str]:
    """Words between blanks, with quotes and backslashes as a shell has them."""
    words, current, quote, begun = [], "", "", False
    characters = iter(text)
    for character in characters:
        if character == "\\" and quote != "'":
            following = next(characters, "")
            current += following if unquote else character + following
            begun = True
        elif quote:
            if character == quote:
                quote = ""
                current += "" if unquote else character
            else:
                current += character
        elif character in "\"'":
            quote, begun = character, True
            current += "" if unquote else character
        elif character.isspace():
            if begun:
                words.append(current)
            current, begun = "", False
        else:
            current += character
            begun = True
    if quote:
        raise InvalidArgument(
            f'failed to process "{text}": unexpected end of statement while looking for matching double-quote'
        )
    return [*words, current] if begun else words


def _need(name: str, rest: str) -> None:
    if not rest:
        raise InvalidArgument(f"{name} requires at least one argument")


def _pairs(name: str, state: _State, rest: str) -> list[tuple[str, str]]:
    """`key=value ...`, or the older `key value`."""
    _need(name, rest)
    raw = _words(rest, unquote=False)
    if "=" not in raw[0]:
        key, _, value = rest.partition(" ")
        if not value.strip():
            raise InvalidArgument(f"{name} must have two arguments")
        found = [(key, value.strip())]
    else:
        found = []
        for word in raw:
            key, equals, value = word.partition("=")
            if not equals:
                raise InvalidArgument(f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value')
            found.append((key, value))
    return [(_plain(state.expand(key)), _plain(state.expand(value))) for key, value in found]


def _plain(text: str) -> str:
    """Text without its quotes."""
    return " ".join(_words(text)) if any(mark in text for mark in "\"'\\") else text


def _command(state: _State, rest: str) -> list[str] | None:
    given = _json_list(rest)
    if given is not None:
        return given
    return [*(state.config.get("Shell") or SHELL), rest] if rest else None


def _cmd(state: _State, rest: str) -> None:
    state.config["Cmd"] = _command(state, rest)
    state.command_given = bool(state.config["Cmd"])


def _entrypoint(state: _State, rest: str) -> None:
    state.config["Entrypoint"] = _command(state, rest)
    if not state.command_given:
        state.config["Cmd"] = None


def _env(state: _State, rest: str) -> None:
    variables = list(state.config.get("Env") or ())
    for key, value in _pairs("ENV", state, rest):
        if not key:
            raise InvalidArgument("ENV names can not be blank")
        places = [at for at, entry in enumerate(variables) if entry.partition("=")[0] == key]
        if places:
            variables[places[0]] = f"{key}={value}"
        else:
            variables.append(f"{key}={value}")
    state.config["Env"] = variables


def _label(state: _State, rest: str) -> None:
    labels = dict(state.config.get("Labels") or {})
    for key, value in _pairs("LABEL", state, rest):
        if not key:
            raise InvalidArgument("LABEL names can not be blank")
        labels[key] = value
    state.config["Labels"] = labels


def _expose(state: _State, rest: str) -> None:
    _need("EXPOSE", rest)
    ports = dict(state.config.get("ExposedPorts") or {})
    for word in _words(state.expand(rest)):
        match = _PORT.fullmatch(word)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if match is None or not 0 < first <= last <= 65535:
            raise InvalidArgument(f"invalid containerPort: {word}")
        ports |= {f"{port}/{(match[3] or 'tcp').lower()}": {} for port in range(first, last + 1)}
    state.config["ExposedPorts"] = ports


def _volume(state: _State, rest: str) -> None:
    _need("VOLUME", rest)
    given = _json_list(rest)
    paths = [state.expand(path) for path in given] if given is not None else _words(state.expand(rest))
    if not paths:
        raise InvalidArgument("VOLUME requires at least one argument")
    if not all(path.strip() for path in paths):
        raise InvalidArgument("VOLUME specified can not be an empty string")
    state.config["Volumes"] = {**(state.config.get("Volumes") or {}), **{path: {} for path in paths}}


def _one(name: str, state: _State, rest: str) -> str:
    if not rest:
        raise InvalidArgument(f"{name} requires exactly one argument")
    return _plain(state.expand(rest))


def _user(state: _State, rest: str) -> None:
    state.config["User"] = _one("USER", state, rest)


def _workdir(state: _State, rest: str) -> None:
    path = _one("WORKDIR", state, rest)
    joined = posixpath.join("/", state.config.get("WorkingDir") or "", path)
    state.config["WorkingDir"] = posixpath.normpath(joined).replace("//", "/")


def _stop_signal(state: _State, rest: str) -> None:
    name = _one("STOPSIGNAL", state, rest)
    bare = name.upper().removeprefix("SIG")
    if not (_SIGNALS.fullmatch(bare) or f"SIG{bare}" in signal.Signals.__members__):
        raise InvalidArgument(f"invalid signal: {name}")
    state.config["StopSignal"] = name


def _on_build(state: _State, rest: str) -> None:
    _need("ONBUILD", rest)
    trigger = rest.partition(" ")[0].upper()
    if trigger == "ONBUILD":
        raise InvalidArgument("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in {"MAINTAINER", "FROM"}:
        raise InvalidArgument(f"{trigger} isn't allowed as an ONBUILD trigger")
    state.config["OnBuild"] = [*(state.config.get("OnBuild") or ()), rest]


_FLAGS = {
    "--interval": "Interval",
    "--timeout": "Timeout",
    "--start-period": "StartPeriod",
    "--start-interval": "StartInterval",
}


def _health_check(state: _State, rest: str) -> None:
    _need("HEALTHCHECK", rest)
    check: Config = {}
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        rest = rest.strip()
        name, _, value = flag.partition("=")
        if name == "--retries":
            if not (value.isascii() and value.isdigit()):
                raise InvalidArgument(f"--retries must be at least 0 (not {value})")
            check["Retries"] = int(value)
        elif name in _FLAGS:
            check[_FLAGS[name]] = _nanoseconds(name[2:], value)
        else:
            raise InvalidArgument(f"unknown flag: {name}")
    kind, _, command = rest.partition(" ")
    command = command.strip()
    if kind.upper() == "NONE":
        if command:
            raise InvalidArgument("HEALTHCHECK NONE takes no arguments")
        check = {"Test": ["NONE"]}
    elif kind.upper() == "CMD":
        given = _json_list(command)
        if not command or given == []:
            raise InvalidArgument("Missing command after HEALTHCHECK CMD")
        check["Test"] = ["CMD", *given] if given is not None else ["CMD-SHELL", command]
    else:
        raise InvalidArgument(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    state.config["Healthcheck"] = check


def _nanoseconds(name: str, text: str) -> int:
    parts = _DURATION.findall(text)
    if text != "0" and (not parts or "".join(map("".join, parts)) != text):
        raise InvalidArgument(f'time: invalid duration "{text}"')
    total = round(sum(float(number) * _NANOSECONDS[unit] for number, unit in parts))
    if total and total < 10**6:
        raise InvalidArgument(f"interval {name!r} cannot be less than 1ms")
    return total


_HANDLERS: dict[str, Callable[[_State, str], None]] = {
    "cmd": _cmd, "entrypoint": _entrypoint, "env": _env, "expose": _expose, "healthcheck": _health_check,
    "label": _label, "onbuild": _on_build, "stopsignal": _stop_signal, "user": _user, "volume": _volume,
    "workdir": _workdir,
}  # fmt: skip
