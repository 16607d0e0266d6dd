"""knarr's command line has docker's verbs, flags, shorthands, kinds of values and defaults.

tests/tour/flags.txt is docker's; flags-exceptions.txt has what knarr lacks or does otherwise, each with its reason.
"""

import pytest

from knarr.cli import index
from knarr.cli.command import FLAG, LIST
from tests.tour import flags, tour

VERBS = flags.read(tour.HERE / "flags.txt")
REPEATED = {"list", "map", "filter", "mount", "network", "ulimit", "strings"}  # values that may be given several times
EXCEPTIONS = dict(
    line.split(": ", 1)
    for line in (tour.HERE / "flags-exceptions.txt").read_text().splitlines()
    if line and not line.startswith("#")
)


def command(spelling):
    _, found, rest = index.find(spelling.split())
    return found if not rest else None


def complaints(option, flag):
    """What is wrong with an option of ours, beside docker's flag."""
    if option is None:
        yield f"{flag.name} {flag.value} is missing"
        return
    if flag.short and flag.short not in option.flags:
        yield f"{flag.name} lacks {flag.short}"
    if (option.kind == FLAG) != (not flag.value):
        yield f"{flag.name} is {option.kind}, not {flag.value or 'a flag without value'}"
    if (flag.value in REPEATED) != (option.kind == LIST):
        yield f"{flag.name} is {option.kind}, not {flag.value}"
    default = "" if option.default in (None, False, 0, "") else str(option.default).lower()
    if default != flag.default:
        yield f"the default of {flag.name} is {default!r}, not {flag.default!r}"


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.spellings[0])
def test_a_verb(verb):
    missing = [spelling for spelling in verb.spellings if spelling not in EXCEPTIONS and command(spelling) is None]
    assert not missing
    name = verb.spellings[0]
    found = command(name)
    if found is None:
        return  # an exception, or it would be missing
    wrong = [
        complaint
        for flag in verb.flags
        if f"{name} {flag.name}" not in EXCEPTIONS and flag.name != "--help"
        for complaint in complaints(found.find(flag.name), flag)
    ]
    assert not wrong
    assert f"knarr {name} " in found.example + " ", "the example is of another verb"


def test_exceptions_are_of_what_docker_has():
    known = {spelling for verb in VERBS for spelling in verb.spellings}
    known |= {f"{verb.spellings[0]} {flag.name}" for verb in VERBS for flag in verb.flags}
    assert set(EXCEPTIONS) <= known


@pytest.mark.parametrize(
    ("verb", "flag"),
    [(verb, flag) for verb in VERBS for flag in verb.flags if f"{verb.spellings[0]} {flag.name}" in EXCEPTIONS],
    ids=lambda part: part.name if isinstance(part, flags.Flag) else part.spellings[0],
)
def test_an_exception_is_one(verb, flag):
    found = command(verb.spellings[0])
    assert found is None or list(complaints(found.find(flag.name), flag))
