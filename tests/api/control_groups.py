"""A container's control group, read behind the engine's back."""

import hashlib
from pathlib import Path

from tests.conftest import wait_until

ROOT = Path("/sys/fs/cgroup")
UNIFIED = (ROOT / "cgroup.controllers").exists()


def read(engine, container_id: str, controller: str, name: str) -> str:
    """A file of its group; `controller` says in which hierarchy where there is one for each."""
    own = hashlib.sha256(str(engine.run_root.resolve()).encode()).hexdigest()[:8]
    return (ROOT / ("" if UNIFIED else controller) / f"knarr-{own}" / container_id / name).read_text().strip()


def table(text: str) -> dict[str, int]:
    """Lines of `key value`."""
    return {key: int(value) for key, value in (line.split() for line in text.splitlines())}


def named(pattern):
    """The groups of that name at the top of each hierarchy. No deeper: elsewhere they come and go."""
    return [*ROOT.glob(pattern), *ROOT.glob(f"*/{pattern}")]


def remove(place):
    """Remove a group; those of containers in it go a moment after the end of these has been told."""

    def removed():
        try:
            place.rmdir()
        except OSError:
            return False
        return True

    wait_until(removed, what=f"the end of what is in {place}")
