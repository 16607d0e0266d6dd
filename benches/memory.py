"""Resident memory: the idle daemon, and what each idle container adds to the supervisor."""

from __future__ import annotations

import time

from benches.engines import Knarr, resident
from benches.measure import Row
from tests.conftest import busybox_archive

CONTAINERS = 50


def rows() -> list[Row]:
    """Measured on an engine of its own."""
    knarr = Knarr()
    try:
        knarr.knarr("load", "-q", "-i", str(busybox_archive()))
        connection = knarr.connect()
        body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}

        def start() -> str:
            container = str(connection.call("POST", "/containers/create", body)["Id"])
            connection.call("POST", f"/containers/{container}/start")
            return container

        start()
        time.sleep(1)
        before = sum(resident(pid)[0] for pid in knarr.supervisors())
        for _ in range(CONTAINERS):
            start()
        time.sleep(1)
        each = (sum(resident(pid)[0] for pid in knarr.supervisors()) - before) / CONTAINERS
        daemon = resident(knarr.daemon)[0]
    finally:
        knarr.close()
    return [
        Row("an idle container, supervisor and keeper", f"{each / 1000:.0f} KB", "", None, "100 KB"),
        Row(f"the idle daemon, {CONTAINERS + 1} containers", f"{daemon / 1e6:.0f} MB", "", None, "80 MB"),
    ]
