"""What may differ between two runs of one step and means nothing: IDs, times, sizes, addresses, columns' widths.

The table is applied in its order to every line.
"""

from __future__ import annotations

import re

_MONTH = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_SPAN = r"(?:Less than a second|About an? (?:minute|hour)|\d+ (?:second|minute|hour|day|week|month|year)s?)"

TABLE = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\x1b\[[0-9;?]*[A-Za-z]", ""),
        (r"\b[0-9a-f]{64}\b", "<id>"),
        (r"\b(?=[0-9a-f]*\d)[0-9a-f]{12}\b", "<short id>"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d| [+-]\d{4} [A-Z]+)?", "<time>"),
        (rf"\b(?:{_MONTH})\s+\d+ \d\d:\d\d\b", "<time>"),
        (rf"\bUp {_SPAN}", "Up <span>"),
        (rf"\b{_SPAN} ago", "<span> ago"),
        (r"(?<![\w.])\d+(?:\.\d+)?(?:e[+-]\d+)? ?(?:B|kB|MB|GB|KiB|MiB|GiB)(?![\w/])", "<size>"),
        (r"(?<![\w.])\d+(?:\.\d+)?%", "<percent>"),
        (r"\b(?:172|10|192\.168)(?:\.\d+){2,3}\b", "<address>"),
        (r"\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b", "<mac>"),
        (r"(127\.0\.0\.1|0\.0\.0\.0|\[::\]):(?:3[2-9]|[45]\d|6[0-5])\d{3}\b", r"\1:<port>"),
    )
]

# Luck decides what is told: what a layer of a push or pull is doing at the moment; that docker's own pipe was closed;
# that docker gave up its wait for a container, whose start had failed on another connection.
_LUCK = re.compile(
    r"<short id>: (?:Preparing|Waiting|Pulling fs layer|Download complete|Already exists|Pushing.*)"
    r"|.* level=error msg=\"Can't .*closed pipe\""
    r"|.* level=error msg=\"error waiting for container: context canceled\""
)
_RUNC = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "runc create failed: unable to start container process: "
)
# Docker's words that name its own parts, and what stands for them on both sides.
_PARTS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # knarr has neither shim nor runc: the message begins where theirs comes to the point.
        (_RUNC + r"(?:error during container init: )?", ""),
        (r"OCI runtime exec failed: exec failed: unable to start container process: ", ""),
        # Docker's registry client prefixes what the registry answered with what it was doing; both say "not found".
        (r'failed to resolve reference "([^"]*)": \1: not found', r"manifest for \1 not found: manifest unknown"),
        (r"knarr-[0-9a-f]{8}/", "<engine>/"),
    )
]


def lines(text: str, places: dict[str, str]) -> list[str]:
    """The lines of a text, normalised; `places` are names for what is of this run: directories, registries."""
    for place, name in places.items():
        text = text.replace(place, name)
    result = []
    for written in text.replace("\r\n", "\n").splitlines():
        line = written
        for pattern, replacement in (*TABLE, *_PARTS):
            line = pattern.sub(replacement, line)
        if _LUCK.fullmatch(line):
            continue
        indent = len(line) - len(line.lstrip(" "))
        result.append(line[:indent] + re.sub(r"  +|\t", "  ", line[indent:]).rstrip())
    return result
