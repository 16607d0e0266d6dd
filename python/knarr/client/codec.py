"""JSON on the C accelerator of the standard library alone.

`import json` brings `re`, `enum` and `functools` with it: 5 of the 45 milliseconds that a whole `knarr run` may
take. The accelerator by itself costs nothing. Where it is missing or stumbles, the real package answers.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    make_scanner: Callable[..., Any] | None
    make_encoder: Callable[..., Any]
    encode_basestring_ascii: Callable[[str], str]
else:
    try:
        from _json import encode_basestring_ascii, make_encoder, make_scanner
    except ImportError:  # an interpreter without the accelerator
        make_scanner = None

_SPACE = " \t\r\n"


class _Context:
    """What the scanner asks of json.JSONDecoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def _slow_loads(text: "str | bytes") -> "Any":
    import json

    return json.loads(text)


def _slow_dumps(value: object) -> bytes:
    import json

    return json.dumps(value, separators=(",", ":")).encode()


if make_scanner is not None:
    _scan = make_scanner(_Context())
    _encode = make_encoder(None, None, encode_basestring_ascii, None, ":", ",", False, False, True)

    def loads(text: "str | bytes") -> "Any":
        """Parse one JSON document. ValueError when it is malformed."""
        if isinstance(text, bytes):
            text = text.decode()
        text = text.strip(_SPACE)
        try:
            value, end = _scan(text, 0)
        except (StopIteration, SystemError, ValueError):
            return _slow_loads(text)
        return value if end == len(text) else _slow_loads(text)

    def dumps(value: object) -> bytes:
        """Compact JSON, ASCII only. TypeError for what JSON cannot hold."""
        try:
            return "".join(_encode(value, 0)).encode()
        except TypeError:
            return _slow_dumps(value)
else:
    loads: "Callable[[str | bytes], Any]" = _slow_loads  # type: ignore[no-redef]
    dumps: "Callable[[object], bytes]" = _slow_dumps  # type: ignore[no-redef]
