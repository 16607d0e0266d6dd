"""The functions of --format templates, and how Go shows and judges values (text/template, fmt)."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Shown(dict[str, "Any"]):
    """An object that templates show as a text of its own."""

    text = ""


class Row(dict[str, "Any"]):
    """One entry of a list: what a template may say of it. Callables are fields that take an argument."""


class Kinds(dict[str, "list[Row]"]):
    """Lists of entries, by what they are of."""


def truth(value: "Any") -> bool:
    """Go's truth: false, 0, nil and what is empty are false."""
    return callable(value) or bool(value)


def to_text(value: "Any", *, nested: bool = False) -> str:
    """As fmt prints values."""
    if value is None:
        return "<nil>" if nested else "<no value>"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
    if isinstance(value, Shown):
        return value.text
    if isinstance(value, dict):
        pairs = [f"{key}:{to_text(item, nested=True)}" for key, item in sorted(value.items()) if not callable(item)]
        return f"map[{' '.join(pairs)}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(to_text(item, nested=True) for item in value)}]"
    return str(value)


def to_json(value: "Any", indent: "int | None" = None) -> str:
    """JSON on one line, or indented; letters of all alphabets as they are. Rows in Docker's form for these."""
    import json

    separators = (",", ":") if indent is None else (",", ": ")
    if isinstance(value, Kinds):
        value = {kind: [_fields(row) for row in rows] for kind, rows in value.items()}
    elif isinstance(value, Row):
        value = _fields(value)
    else:
        return json.dumps(value, ensure_ascii=False, separators=separators, indent=indent)
    text = json.dumps(value, ensure_ascii=False, separators=separators, indent=indent)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _fields(row: Row) -> "dict[str, Any]":
    return {key: row[key] for key in sorted(row) if not callable(row[key])}


def _index(value: "Any", *keys: "Any") -> "Any":
    for key in keys:
        if isinstance(value, dict):
            strings = bool(value) and all(isinstance(item, str) for item in value.values())
            value = value.get(key, "" if strings else None)
        elif isinstance(value, (list, tuple, str)):
            if not 0 <= key < len(value):
                raise IndexError(f"index out of range: {key}")
            value = value[key]
        elif value is None and isinstance(key, str):  # of a map that is nil
            return ""
        elif value is None:
            raise IndexError("index of untyped nil")
        else:
            raise TypeError(f"can't index {value!r}")
    return value


def _slice(value: "Any", start: int = 0, end: "int | None" = None) -> "Any":
    """Bytes of a text, or items; beyond the end is an error."""
    whole = value.encode() if isinstance(value, str) else value
    end = len(whole) if end is None else end
    for bound in (start, end):
        if not 0 <= bound <= len(whole):
            raise IndexError(f"index out of range: {bound}")
    part = whole[start:end]
    return part.decode(errors="replace") if isinstance(part, bytes) else part


def _equal(first: "Any", *others: "Any") -> bool:
    if not others:
        raise TypeError("missing argument for comparison")
    return any(_same(first, other) for other in others)


def _same(first: "Any", second: "Any") -> bool:
    if isinstance(first, (str, bool)) != isinstance(second, (str, bool)) and None not in (first, second):
        raise TypeError("incompatible types for comparison")
    return bool(first == second)


def _print(*values: "Any") -> str:
    out = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            out += " "
        out += to_text(value, nested=True)
    return out


def _println(*values: "Any") -> str:
    return " ".join(to_text(value, nested=True) for value in values) + "\n"


def _printf(form: str, *values: "Any") -> str:
    """The verbs of fmt: %s %v %d %q %x %t %f %g %%, with flags, width and precision."""
    out, position, rest = "", 0, list(values)
    while position < len(form):
        if form[position] != "%":
            out += form[position]
            position += 1
            continue
        start = position + 1
        position = start
        while position < len(form) and form[position] in "-+ #0123456789.":
            position += 1
        if position == len(form):
            return out + "%!(NOVERB)"
        verb, flags = form[position], form[start:position]
        position += 1
        if verb == "%":
            out += "%"
        elif not rest:
            out += f"%!{verb}(MISSING)"
        else:
            out += _verb(verb, flags, rest.pop(0))
    return out


def _verb(verb: str, flags: str, value: "Any") -> str:
    if verb in ("s", "v", "t"):
        return f"%{flags}s" % to_text(value, nested=True)
    if verb == "q":
        return f"%{flags}s" % to_json(to_text(value, nested=True))
    if verb in ("d", "x", "X", "o", "f", "g", "e", "c"):
        return str(f"%{flags}{verb}" % value)
    raise ValueError(f"unknown verb %{verb}")


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else ""


def _title(text: str) -> str:
    return "".join(
        letter if number and (text[number - 1].isalnum() or text[number - 1] == "_") else letter.upper()
        for number, letter in enumerate(text)
    )


def _join(items: "list[Any] | None", separator: str) -> str:
    return separator.join(to_text(item, nested=True) for item in items or ())


def _length(value: "Any") -> int:
    return 0 if value is None else len(value.encode() if isinstance(value, str) else value)


def _html(*values: "Any") -> str:
    text = _print(*values)
    for letter, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(letter, entity)
    return text


def _urlquery(*values: "Any") -> str:
    from urllib.parse import quote_plus

    return quote_plus(_print(*values))


FUNCTIONS: "dict[str, Callable[..., Any]]" = {
    "not": lambda value: not truth(value),
    "eq": _equal,
    "ne": lambda first, second: not _same(first, second),
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "len": _length,
    "index": _index,
    "slice": _slice,
    "print": _print,
    "printf": _printf,
    "println": _println,
    "html": _html,
    "urlquery": _urlquery,
    "json": to_json,
    "join": _join,
    "split": lambda text, separator: text.split(separator),
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "title": _title,
    "pad": _pad,
    "truncate": lambda text, length: text[:length],
}


def _unchanged(text: "Any", *_: "Any") -> "Any":
    return text


def _name(value: "Any") -> str:
    if not isinstance(value, str):
        raise TypeError("it is no column's name")
    return value


# In a table's header the columns' names go through these unharmed.
HEADER_FUNCTIONS: "dict[str, Callable[..., Any]]" = {
    **dict.fromkeys(("lower", "upper", "title", "truncate", "split", "join"), _unchanged),
    "json": _name,
}
