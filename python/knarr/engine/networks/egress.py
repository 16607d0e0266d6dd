"""Allow-lists of what may be reached beyond a container's own networks: what is on one, from its text.

A list is words between commas or spaces: `pypi.org:443,*.pythonhosted.org:443,10.0.0.0/8,[2001:db8::/32]:53/udp`. A
word is a name, `*.` and a name for all names below it, an address or a network in CIDR form; then, if not all of it is
meant, a port or a range of ports; then, if not every transport is meant, a slash and a transport. `none` is nothing.

A network has one by its option, and a container by its annotation, both called `knarr.egress`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any

from knarr.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EGRESS", "of", "rules"]

EGRESS = "knarr.egress"
RULES_MAX = 256
_RULE = re.compile(
    r"(?P<target>\[[^\]]*\]|[^:\[\]]+)(?::(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?(?:/(?P<protocol>\w+))?)?"
)
_NAME = re.compile(r"(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NAME_MAX = 253
_FORM = "expected NAME, *.NAME or CIDR, then perhaps :PORT or :FIRST-LAST, and then perhaps /tcp, /udp or /sctp"


def of(settings: Mapping[str, str] | None) -> list[dict[str, Any]] | None:
    """The rules that a network's options or a container's annotations say; None where they say nothing of it."""
    text = (settings or {}).get(EGRESS)
    return None if text is None else rules(text)


def rules(text: str) -> list[dict[str, Any]]:
    """The rules of a list, as the supervisor takes them. InvalidArgument, which names the word."""
    words = [word for word in re.split(r"[,\s]+", text) if word]
    if not words:
        raise InvalidArgument("invalid egress list: it is empty: for nothing at all it is 'none'")
    if words == ["none"]:
        return []
    if len(words) > RULES_MAX:
        raise InvalidArgument(f"invalid egress list: it has {len(words)} entries, and may have {RULES_MAX}")
    return [_rule(word) for word in words]


def _rule(word: str) -> dict[str, Any]:
    if word.count(":") > 1 and "[" not in word:
        return {"network": _network(word, word)}
    found = _RULE.fullmatch(word)
    if found is None:
        raise _invalid(word, _FORM)
    target = found["target"]
    rule: dict[str, Any] = {}
    if target.startswith("["):
        rule["network"] = _network(target[1:-1], word)
    elif "/" in target or re.fullmatch(r"[0-9.]+", target):
        rule["network"] = _network(target, word)
    else:
        rule["name"] = _name(target, word)
    if found["first"]:
        first, last = int(found["first"]), int(found["last"] or found["first"])
        if not 0 < first <= last < 1 << 16:
            raise _invalid(word, "ports are from 1 to 65535, and the first of a range comes first")
        rule["ports"] = [first, last]
    if found["protocol"]:
        if found["protocol"] not in ("tcp", "udp", "sctp"):
            raise _invalid(word, f"{found['protocol']} is not tcp, udp or sctp")
        rule["protocol"] = found["protocol"]
    return rule


def _network(text: str, word: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise _invalid(word, str(error) if "/" in text else _FORM) from None


def _name(text: str, word: str) -> str:
    if text == "*":
        return text
    name = text.rstrip(".").lower()
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            raise _invalid(word, _FORM) from None
    if not _NAME.fullmatch(name) or len(name) > _NAME_MAX:
        raise _invalid(word, _FORM)
    return name


def _invalid(word: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"invalid egress list: {word!r}: {why}")
