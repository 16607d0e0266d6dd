"""Prints what the wheel is built with, a line each: pyproject.toml's build requirements.

They are installed into the virtual environment that is there: one of its own for each build would cost writing and
removing some 20,000 files.
"""

import re
from pathlib import Path

TEXT = (Path(__file__).resolve().parent.parent / "pyproject.toml").read_text(encoding="utf-8")


def requirements(text: str) -> list[str]:
    """The strings of `requires` in `[build-system]`. Without a TOML parser, which Python 3.10 has not."""
    found = re.search(r"^requires = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit("pyproject.toml: `requires` of [build-system] is not where it was")
    return re.findall(r'"([^"]+)"', found[1])


if __name__ == "__main__":
    print("\n".join(requirements(TEXT)))
