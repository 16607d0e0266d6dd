"""knarr's command line has docker's verbs, flags, shorthands, kinds of values and defaults.

tests/tour/flags.txt is docker's. What makes no sense with knarr is taken, and refused with the reason.
"""

import pytest

from knarr.cli import index
from knarr.cli.command import FLAG, LIST
from tests.tour import flags, tour

VERBS = flags.read(tour.HERE / "flags.txt")
REPEATED = {"list", "map", "filter", "mount", "network", "ulimit", "strings"}  # values that may be given several times


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
    assert not [spelling for spelling in verb.spellings if command(spelling) is None], "missing"
    name = verb.spellings[0]
    found = command(name)
    wrong = [
        complaint
        for flag in verb.flags
        if flag.name != "--help"
        for complaint in complaints(found.find(flag.name), flag)
    ]
    assert not wrong
    assert f"knarr {name} " in found.example + " ", "the example is of another verb"
