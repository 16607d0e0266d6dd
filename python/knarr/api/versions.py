"""Which versions of the API are served, and what every answer says of them."""

from __future__ import annotations

from knarr._core import __version__

__all__ = ["API_VERSION", "HEADERS", "HEADER_LINES", "MINIMUM_API_VERSION", "parse", "refusal"]

API_VERSION = "1.56"
MINIMUM_API_VERSION = "1.24"
HEADERS = {
    "Api-Version": API_VERSION,
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"knarr/{__version__} (linux)",
}
HEADER_LINES = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())


def parse(text: str) -> tuple[int, int]:
    """(1, 44) of "1.44": the digits and dots after the `v` of a path; what is missing is 0."""
    first, _, rest = text.partition(".")
    return _number(first), _number(rest.partition(".")[0])


def _number(text: str) -> int:
    return int(text[:9] or 0)  # longer ones are too new in any case


_LOW, _HIGH = parse(MINIMUM_API_VERSION), parse(API_VERSION)


def refusal(text: str) -> str:
    """Why a version of the API is not served, in Docker's words; empty where it is, or where none is named."""
    version = parse(text)
    if not text or _LOW <= version <= _HIGH:
        return ""
    if version > _HIGH:
        return f"client version {text} is too new. Maximum supported API version is {API_VERSION}"
    return (
        f"client version {text} is too old. Minimum supported API version is {MINIMUM_API_VERSION}, "
        "please upgrade your client to a newer version"
    )
