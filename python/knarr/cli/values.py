"""The small notations of option values: sizes, durations, decimals, key=value."""

from knarr.errors import InvalidArgument

_BINARY = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def boolean(text: str) -> bool:
    """What `--flag=TEXT` says."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise InvalidArgument(f"{text!r} is neither true nor false")


def size(text: str) -> int:
    """Bytes: "512", "512m", "1.5g", "2GiB" (all binary, whatever the case)."""
    lowered = text.lower()
    digits = lowered.rstrip("bkmgtpi ")
    unit = lowered[len(digits) :].strip()
    if unit not in ("", "b"):
        unit = unit[0] if unit[1:] in ("", "b", "ib") else "?"
    if not digits or not digits.replace(".", "", 1).isdigit() or not digits.isascii() or unit not in _BINARY:
        raise InvalidArgument(f"invalid size: {text!r} (a number with b, k, m, g, t or p, such as 512m)")
    whole, _, fraction = digits.partition(".")
    result = int(whole or "0") * _BINARY[unit]
    if fraction:
        result += int(fraction) * _BINARY[unit] // 10 ** len(fraction)
    if result >= 1 << 63:
        raise InvalidArgument(f"invalid size: {text!r} is beyond what fits in 63 bits")
    return result


def swap(text: str) -> int:
    """Bytes, or -1 for no limit."""
    return -1 if text == "-1" else size(text)


def duration(text: str) -> int:
    """Nanoseconds: "1h30m", "1.5s", "300ms", "0"."""
    rest = text.lstrip("+")
    if rest == "0":
        return 0
    total = 0
    while rest:
        length = 0
        while length < len(rest) and (rest[length].isdigit() or rest[length] == "."):
            length += 1
        number, rest = rest[:length], rest[length:]
        length = 0
        while length < len(rest) and not (rest[length].isdigit() or rest[length] == "."):
            length += 1
        unit, rest = rest[:length], rest[length:]
        whole, _, fraction = number.partition(".")
        if unit not in _NANOSECONDS or not (whole + fraction).isdigit():
            total = -1
            break
        total += int(whole or "0") * _NANOSECONDS[unit]
        total += int(fraction or "0") * _NANOSECONDS[unit] // 10 ** len(fraction)
    if not text or total < 0:
        raise InvalidArgument(f"invalid duration: {text!r} (numbers with ns, us, ms, s, m or h, such as 1m30s)")
    return total


def nano(text: str) -> int:
    """Billionths: "1.5" is 1500000000. At most nine decimal places."""
    whole, _, fraction = text.partition(".")
    if not (whole + fraction).isdigit() or not text.isascii():
        raise InvalidArgument(f"{text!r} is not a decimal number")
    if len(fraction) > 9:
        raise InvalidArgument(f"{text!r} is too precise: nine decimal places are kept")
    return int(whole or "0") * 10**9 + int(fraction.ljust(9, "0"))


def integer(text: str, what: str) -> int:
    """A whole number, in decimal."""
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(f"{what}: {text!r} is not a whole number") from None


def pairs(items: "list[str]") -> "dict[str, str]":
    """{"a": "b", "c": ""} of ["a=b", "c"]; the last of a name counts."""
    result = {}
    for item in items:
        key, _, value = item.partition("=")
        result[key] = value
    return result


def octal(text: str, option: str) -> int:
    """An octal number of at most 32 bits."""
    if not text.isascii() or not text.isdigit() or set(text) & {"8", "9"} or int(text, 8) >= 1 << 32:
        raise InvalidArgument(f"invalid argument {text!r} for {option}: it is octal, such as 027")
    return int(text, 8)


def fields(text: str) -> "list[str]":
    """The fields of one line of comma-separated values (RFC 4180): a field in quotes may hold commas."""
    if '"' not in text:
        return text.split(",")
    result = []
    rest: str | None = text
    while rest is not None:
        if not rest.startswith('"'):
            field, comma, after = rest.partition(",")
            if '"' in field:
                raise InvalidArgument(f'a bare " in {text!r}: put the whole field in quotes')
            result.append(field)
            rest = after if comma else None
            continue
        field, position = "", 1
        while True:
            end = rest.find('"', position)
            if end < 0:
                raise InvalidArgument(f'a missing " in {text!r}')
            field += rest[position:end]
            if rest[end + 1 : end + 2] != '"':
                break
            field, position = field + '"', end + 2
        result.append(field)
        following = rest[end + 1 :]
        if following and not following.startswith(","):
            raise InvalidArgument(f'text after the closing " in {text!r}')
        rest = following[1:] if following else None
    return result
