"""The docker command line's verbs and flags as data, read from its help pages.

    python -m tests.tour.flags CLI >tests/tour/flags.txt

flags.txt has a verb a paragraph: its spellings, its usage, and a flag a line:

    run = container run
      usage: [OPTIONS] IMAGE [COMMAND] [ARG...]
      -e --env list
      --pull string = missing

The word after a flag is what its help page calls its value; a flag without one takes none. After `=` stands its default.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

GROUPS = ("container", "image", "system")
# Of other verbs: builds, swarm and plugins have no counterpart; networks, volumes, contexts and manifests are nouns apart.
APART = {"build", "builder", "checkpoint", "context", "manifest", "network", "plugin", "volume", "bake"}
APART |= {"config", "node", "secret", "service", "stack", "swarm"}

_FLAG = re.compile(r"^ {2,6}(?:(-\w), )?(--[\w-]+)(?: ([\w.<>|]+))?(?:   ?(.*))?$")
_EMPTY = ("[]", "map[]", "{}", "0", "0s")


def page(cli: str, *verb: str) -> str:
    """A help page, as wide as it needs to be."""
    environment = {**os.environ, "COLUMNS": "1000", "DOCKER_CONFIG": "/nonexistent", "LC_ALL": "C.UTF-8"}
    return subprocess.run([cli, *verb, "--help"], capture_output=True, text=True, check=True, env=environment).stdout


def verbs(text: str) -> list[str]:
    """The verbs that a page lists."""
    found, within = [], False
    for line in text.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            within = line.endswith("ommands:")
        elif within and re.match(r"^  [a-z]", line):
            found.append(line.split()[0].rstrip("*"))
    return found


def flags(text: str) -> list[Flag]:
    """The flags that a page lists."""
    found: list[Flag] = []
    lines = text.partition("\nOptions:\n")[2].splitlines()
    words = ""
    for line in [*lines, ""]:
        match = _FLAG.match(line)
        if match is None and line.startswith("        ") and found:
            words += " " + line.strip()
            found[-1].default = _default(words, found[-1])
            continue
        if match is None:
            continue
        words = (match[4] or "").strip()
        found.append(Flag(match[2], match[1] or "", match[3] or ""))
        found[-1].default = _default(words, found[-1])
    return found


def _default(words: str, flag: Flag) -> str:
    """The default that the words end with; those that say "nothing" are none."""
    match = re.search(r"\(default (.*)\)$", words)
    value = match[1].strip('"') if match else ""
    if not flag.value:  # "(default shows just running)" is prose
        return value if value == "true" else ""
    return "" if value in _EMPTY else value


@dataclass
class Flag:
    """A flag of a verb: value is "" where it takes none."""

    name: str
    short: str = ""
    value: str = ""
    default: str = ""


@dataclass
class Verb:
    """A verb: its spellings, the shortest first."""

    spellings: list[str]
    usage: str
    flags: list[Flag] = field(default_factory=list)


def walk(cli: str) -> list[Verb]:
    """Every verb of containers, images, exec and the system, once."""
    names = [verb for verb in verbs(page(cli)) if verb not in APART | set(GROUPS)]
    for group in GROUPS:
        names += [f"{group} {verb}" for verb in verbs(page(cli, group)) if verb not in APART]
    found: dict[str, Verb] = {}
    for name in names:
        text = page(cli, *name.split())
        aliases = re.search(r"\nAliases:\n  (.*)\n", text)
        spellings = [word.strip().removeprefix("docker ") for word in aliases[1].split(",")] if aliases else [name]
        spellings.sort(key=lambda spelling: (spelling.count(" "), spelling))
        usage = re.match(r"Usage: +docker (.*)", text)
        assert usage is not None
        found.setdefault(spellings[0], Verb(spellings, usage[1].removeprefix(name).strip(), flags(text)))
    return [found[name] for name in sorted(found)]


def write(found: list[Verb]) -> str:
    """flags.txt."""
    lines = []
    for verb in found:
        lines += [" = ".join(verb.spellings), f"  usage: {verb.usage}".rstrip()]
        for flag in verb.flags:
            words = " ".join(filter(None, (flag.short, flag.name, flag.value)))
            lines.append(f"  {words}" + (f" = {flag.default}" if flag.default else ""))
        lines.append("")
    return "\n".join(lines)


def read(path: Path) -> list[Verb]:
    """What `write` wrote."""
    found: list[Verb] = []
    for line in path.read_text().splitlines():
        if not line.startswith(" "):
            if line:
                found.append(Verb(line.split(" = "), ""))
            continue
        left, _, default = line.strip().partition(" = ")
        if left.startswith("usage:"):
            found[-1].usage = left[6:].strip()
            continue
        words = left.split()
        short = words.pop(0) if not words[0].startswith("--") else ""
        found[-1].flags.append(Flag(words[0], short, " ".join(words[1:]), default))
    return found


if __name__ == "__main__":
    print(write(walk(sys.argv[1])), end="")
