"""The default system call profile: what it lets through, rule by rule, and that it says what Docker's says."""

import json
from importlib import resources
from pathlib import Path

import pytest

from knarr.engine.containers.policy import CAPABILITIES, DEFAULT_CAPABILITIES
from knarr.engine.containers.seccomp import MACHINES, Profiles, resolve
from knarr.errors import InvalidArgument

DATA = Path(__file__).parent / "data" / "seccomp-verdicts.json"
OURS = json.loads(resources.files("knarr.resources").joinpath("seccomp.json").read_text())
SETS = {"none": [], "default": DEFAULT_CAPABILITIES, "every": CAPABILITIES, **{name: [name] for name in CAPABILITIES}}
MASK = (1 << 64) - 1


def matches(rule, arguments):
    """Whether a rule's conditions hold (seccomp_rule_add(3)): all of them."""
    for condition in rule.get("args") or ():
        value, wanted = arguments[condition["index"]], condition["value"]
        other = condition.get("valueTwo", 0)
        held = {
            "SCMP_CMP_EQ": value == wanted, "SCMP_CMP_NE": value != wanted, "SCMP_CMP_LT": value < wanted, "SCMP_CMP_LE": value <= wanted,
            "SCMP_CMP_GT": value > wanted, "SCMP_CMP_GE": value >= wanted, "SCMP_CMP_MASKED_EQ": value & wanted == other,
        }[condition["op"]]  # fmt: skip
        if not held:
            return False
    return True


def verdict(profile, name, arguments=(0,) * 6):
    """(action, errno) of a call."""
    for rule in profile["syscalls"]:
        if name in rule["names"] and matches(rule, arguments):
            return rule["action"], rule.get("errnoRet")
    return profile["defaultAction"], profile.get("defaultErrnoRet")


def apply(calls, difference):
    return calls - set(difference["-"]) | set(difference["+"])


def probes(name):
    """Arguments worth asking about, for calls that are looked into."""
    if name == "socket":
        return [(family, 1, 0, 0, 0, 0) for family in range(64)]
    if name == "personality":
        return [(value, 0, 0, 0, 0, 0) for value in (0, 1, 8, 9, 0x20000, 0x20008, 0x40000, 0xFFFFFFFF, MASK)]
    if name == "clone":
        return [(1 << bit, 1 << other, 0, 0, 0, 0) for bit in range(33) for other in (0, 28, 30)]
    return [(0,) * 6]


@pytest.mark.parametrize("machine", sorted(MACHINES))
@pytest.mark.parametrize("kernel", [(4, 4), (6, 1)])
def test_agrees_with_docker_call_by_call(machine, kernel):
    """The file holds Docker's verdicts (its default profile of 2026), for every call that either profile names."""
    recorded = json.loads(DATA.read_text())
    key = f"{machine}/{kernel[0]}.{kernel[1]}"
    own = apply(set(recorded["allowed"]), recorded["machines"][key]["none"])
    sets = recorded["machines"]["x86_64/6.1"]["sets"] | recorded["machines"][key]["sets"]
    ours = {label: resolve(OURS, frozenset(names), machine, kernel) for label, names in SETS.items()}
    named = {name for profile in ours.values() for rule in profile["syscalls"] for name in rule["names"]}
    assert named <= set(recorded["calls"]), "a call that Docker's profile never names"
    for label, profile in ours.items():
        allowed = apply(own, sets.get(label, {"+": [], "-": []}))
        for name in recorded["calls"]:
            for arguments in probes(name):
                action, errno = verdict(profile, name, arguments)
                call = name if arguments == (0,) * 6 else f"{name}({arguments[0]},{arguments[1]})"
                assert (action == "SCMP_ACT_ALLOW") == (call in allowed), f"{key} {label}: {call}"
                if action != "SCMP_ACT_ALLOW":
                    assert errno == (38 if name == "clone3" else 1), f"{key} {label}: {call}"


def test_every_group_says_what_it_is_for():
    assert all(len(rule["comment"]) > 5 for rule in OURS["syscalls"])


def test_no_call_stands_in_two_unconditional_groups():
    plain = [
        name
        for rule in OURS["syscalls"]
        if not rule.keys() & {"args", "each", "includes", "excludes"}
        for name in rule["names"]
    ]
    assert len(plain) == len(set(plain))


def test_profiles_are_written_once_by_content(tmp_path):
    profiles = Profiles(str(tmp_path))
    first = profiles.path(None, frozenset(DEFAULT_CAPABILITIES))
    assert profiles.path(None, frozenset(DEFAULT_CAPABILITIES)) == first
    assert profiles.path(None, frozenset(CAPABILITIES)) != first
    assert Profiles(str(tmp_path)).path(None, frozenset(DEFAULT_CAPABILITIES)) == first
    assert len(list((tmp_path / "seccomp").iterdir())) == 2
    written = json.loads(Path(first).read_text())
    assert verdict(written, "read")[0] == "SCMP_ACT_ALLOW"
    assert verdict(written, "mount") == ("SCMP_ACT_ERRNO", 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Decoding seccomp profile failed"),
        ("[]", "must be a JSON object"),
        ('{"defaultAction": "ALLOW"}', "defaultAction"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "nonsense": 1}', "unknown field 'nonsense'"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ERRNO"}]}', r"syscalls\[0\]"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "NO"}]}', r"syscalls\[0\]"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["a"], "archMap": [{}]}', "not both"),
    ],
)
def test_bad_profiles_are_refused_with_their_place(tmp_path, text, words):
    with pytest.raises(InvalidArgument, match=words):
        Profiles(str(tmp_path)).check(text)
