"""Volume plugins: found and spoken to as Docker does it (docs.docker.com, "Docker Plugin API", "Volume plugins").

A plugin is an HTTP server on a Unix socket in `/run/docker/plugins`, or where a file in `/etc/docker/plugins` or
`/usr/lib/docker/plugins` says: `NAME.spec` holds its address, `NAME.json` an object of Name, Addr and TLSConfig. It is
asked `Plugin.Activate` first, which tells what it does.

Whatever a plugin does, its caller gets an answer within the limit. One that failed to be activated is left alone for
a while by those who only ask everybody.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import ssl
import stat
import time
from typing import TYPE_CHECKING, Any

import aiohttp

from knarr.errors import Failed, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Answered", "Plugin", "Plugins"]

log = logging.getLogger("knarr.volumes")

MIME = "application/vnd.docker.plugins.v1.2+json"
HOST = "plugin.moby.localhost"
LONGEST = 4 * 1024 * 1024  # bytes of an answer
PATIENCE = 5.0  # seconds that whoever asks everybody waits for one
REST = 20.0  # seconds that he leaves one alone which has failed
AGAIN = 5.0  # seconds for which a plugin that nobody listens for is tried again: it may be starting
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


class Answered(Failed):
    """A plugin's own refusal: it has understood, and nothing has come of it."""


class Plugin:
    """One plugin that is active."""

    def __init__(self, name: str, address: str, tls: dict[str, Any], owner: Plugins) -> None:
        self.name = name
        self._address = address
        self._tls = tls
        self._owner = owner
        self._scope = ""

    async def activate(self, *, patient: bool) -> bool:
        """Whether it drives volumes."""
        answer = await self._call("Plugin.Activate", None, patient=patient)
        implements = answer.get("Implements")
        return isinstance(implements, list) and "VolumeDriver" in implements

    async def create(self, volume: str, options: dict[str, str]) -> None:
        """Make a volume."""
        await self._call("VolumeDriver.Create", {"Name": volume, "Opts": options})

    async def remove(self, volume: str) -> None:
        """Remove a volume."""
        await self._call("VolumeDriver.Remove", {"Name": volume})

    async def mount(self, volume: str, user: str) -> str:
        """The directory where a volume is, for one that uses it."""
        answer = await self._call("VolumeDriver.Mount", {"Name": volume, "ID": user})
        place = answer.get("Mountpoint")
        if not isinstance(place, str) or not place.startswith("/") or "\0" in place:
            raise Failed(f"VolumeDriver.Mount: volume plugin {self.name} gave no path for {volume}: {place!a:.200}")
        return place

    async def unmount(self, volume: str, user: str) -> None:
        """The opposite."""
        await self._call("VolumeDriver.Unmount", {"Name": volume, "ID": user})

    async def find(self, volume: str, *, patient: bool = True) -> dict[str, Any] | None:
        """What it knows of a volume: Name, Mountpoint, CreatedAt, Status. None where it has none, in whatever words."""
        try:
            answer = await self._call("VolumeDriver.Get", {"Name": volume}, patient=patient)
        except Answered as error:
            log.debug("plugin %s, volume %s: %s", self.name, volume, error)
            return None
        found = answer.get("Volume")
        return found if isinstance(found, dict) and found.get("Name") == volume else None

    async def list(self) -> list[dict[str, Any]]:
        """Every volume that it knows, as `find` tells of one."""
        answer = await self._call("VolumeDriver.List", {}, patient=False)
        found = answer.get("Volumes")
        return [item for item in found or () if isinstance(item, dict) and isinstance(item.get("Name"), str)]

    async def scope(self) -> str:
        """`local` or `global`."""
        if not self._scope:
            try:
                answer = await self._call("VolumeDriver.Capabilities", {}, patient=False)
            except Answered:
                answer = {}  # not every plugin knows the question
            except Failed as error:
                log.debug("plugin %s: %s", self.name, error)
                return "local"
            found = answer.get("Capabilities")
            scope = str(found.get("Scope", "")).lower() if isinstance(found, dict) else ""
            self._scope = scope if scope in ("local", "global") else "local"
        return self._scope

    async def _call(self, method: str, body: dict[str, Any] | None, *, patient: bool = True) -> dict[str, Any]:
        """One request. Answered for the plugin's own error, Failed for anything else that is no answer."""
        limit = self._owner.limit if patient else min(self._owner.limit, PATIENCE)
        here = f"{method}: volume plugin {self.name} at {self._address}"
        try:
            status, content = await asyncio.wait_for(self._ask(method, body, patient=patient), limit)
        except asyncio.TimeoutError:
            self._owner.tired(self)
            raise Failed(f"{here} did not answer within {limit:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._owner.tired(self)
            raise Failed(f"{here}: {error}") from error
        if len(content) > LONGEST:
            raise Failed(f"{here} answered more than {LONGEST >> 20} MiB")
        try:
            answer = json.loads(content) if content.strip() else {}
        except (ValueError, RecursionError):
            answer = None
        told = answer.get("Err") if isinstance(answer, dict) else None
        if status != 200:
            raise Answered(f"{method}: {told or content[:500].decode(errors='replace').strip() or f'status {status}'}")
        if not isinstance(answer, dict):
            raise Failed(f"{here} answered what is no JSON object: {content[:80]!a}")
        if told:
            raise Answered(str(told))
        return answer

    async def _ask(self, method: str, body: dict[str, Any] | None, *, patient: bool) -> tuple[int, bytes]:
        end = time.monotonic() + (AGAIN if patient else 0)
        data = b"" if body is None else json.dumps(body).encode()
        headers = {"Accept": MIME, "Content-Type": "application/json"}
        while True:
            connector, base = self._connector()
            try:
                async with (
                    aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session,
                    session.post(f"{base}/{method}", data=data, headers=headers, allow_redirects=False) as response,
                ):
                    content = bytearray()
                    async for chunk in response.content.iter_any():
                        content += chunk
                        if len(content) > LONGEST:
                            break
                    return response.status, bytes(content)
            except aiohttp.ClientConnectorError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.1)

    def _connector(self) -> tuple[aiohttp.BaseConnector, str]:
        """(connector, the base of its URLs). ValueError for an address that is none."""
        scheme, separator, rest = self._address.partition("://")
        if scheme == "unix" and separator:
            return aiohttp.UnixConnector(path=rest), f"http://{HOST}"
        if scheme in ("tcp", "http") and separator:
            return aiohttp.TCPConnector(), f"http://{rest.rstrip('/')}"
        if scheme == "https" and separator:
            return aiohttp.TCPConnector(ssl=self._context()), f"https://{rest.rstrip('/')}"
        raise ValueError(f"{self._address!r} is no address: unix://, tcp://, http:// or https:// begin one")

    def _context(self) -> ssl.SSLContext:
        authority, certificate, key = (str(self._tls.get(name) or "") for name in ("CAFile", "CertFile", "KeyFile"))
        context = ssl.create_default_context(cafile=authority or None)
        if not authority or self._tls.get("InsecureSkipVerify"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate:
            context.load_cert_chain(certificate, key or None)
        return context


class Plugins:
    """The volume plugins of a host. Belongs to the event loop."""

    def __init__(self, sockets: str, specs: Sequence[str], limit: float) -> None:
        self._sockets = sockets
        self._specs = tuple(specs)
        self.limit = limit  # seconds that a plugin may take
        self._active: dict[str, Plugin] = {}
        self._resting: dict[str, float] = {}  # until when
        self._locks: dict[str, asyncio.Lock] = {}

    @property
    def active(self) -> list[str]:
        """The names of those that have been used."""
        return sorted(self._active)

    async def get(self, name: str, *, patient: bool = True) -> Plugin:
        """A plugin by its name. NotFound, Failed, in Docker's words."""
        found = self._active.get(name)
        if found is not None:
            return found
        async with self._locks.setdefault(name, asyncio.Lock()):
            if name in self._active:
                return self._active[name]
            try:
                plugin = await self._activate(name, patient=patient)
            except NotFound:
                self._locks.pop(name, None)
                raise
            except (Failed, OSError, ValueError) as error:
                self._rest(name)
                raise Failed(f"error looking up volume plugin {name}: legacy plugin: {error}") from error
            self._resting.pop(name, None)
            self._active[name] = plugin
            return plugin

    async def _activate(self, name: str, *, patient: bool) -> Plugin:
        plugin = await asyncio.to_thread(self._discover, name)
        if plugin is None:
            raise NotFound(f'error looking up volume plugin {name}: plugin "{name}" not found')
        if not await plugin.activate(patient=patient):
            raise Failed(
                f'Plugin does not implement the requested driver: plugin="{name}", '
                'requested implementation="VolumeDriver"'
            )
        return plugin

    async def every(self) -> list[Plugin]:
        """All that can be had soon."""
        names = await asyncio.to_thread(self._scan)
        now = time.monotonic()
        asked = [name for name in sorted(names | set(self._active)) if self._resting.get(name, 0) < now]
        found = await asyncio.gather(*(self.get(name, patient=False) for name in asked), return_exceptions=True)
        for name, result in zip(asked, found, strict=True):
            if isinstance(result, BaseException) and not isinstance(result, (Failed, NotFound)):
                raise result
            if isinstance(result, Failed):
                log.warning("%s", result)
            elif isinstance(result, NotFound):
                log.debug("plugin %s has gone: %s", name, result)
        return [plugin for plugin in found if isinstance(plugin, Plugin)]

    def tired(self, plugin: Plugin) -> None:
        """It did not answer: whoever asks everybody leaves it alone for a while, and it is activated anew."""
        if self._active.get(plugin.name) is plugin:
            del self._active[plugin.name]
        self._rest(plugin.name)

    def _rest(self, name: str) -> None:
        self._resting[name] = time.monotonic() + REST

    def _scan(self) -> set[str]:
        names = set()
        for directory, wanted in ((self._sockets, (".sock",)), *((path, (".spec", ".json")) for path in self._specs)):
            for path in (directory, *_directories(directory)):
                for name in _names(path):
                    base, extension = os.path.splitext(name)
                    if extension in wanted and _NAME.fullmatch(base):
                        names.add(base)
        return names

    def _discover(self, name: str) -> Plugin | None:
        """A plugin that is not active yet. OSError, ValueError for what tells of it and cannot be read."""
        if not _NAME.fullmatch(name):
            return None
        for path in _paths(self._sockets, name, ".sock"):
            try:
                if stat.S_ISSOCK(os.stat(path).st_mode):
                    return Plugin(name, f"unix://{path}", {}, self)
            except OSError:
                continue
        for directory in self._specs:
            for path in (*_paths(directory, name, ".spec"), *_paths(directory, name, ".json")):
                try:
                    with open(path, encoding="utf-8") as file:
                        text = file.read(1 << 16)
                except FileNotFoundError:
                    continue
                if path.endswith(".spec"):
                    return Plugin(name, text.strip(), {}, self)
                told = json.loads(text)
                if not isinstance(told, dict) or not isinstance(told.get("Addr"), str):
                    raise ValueError(  # noqa: TRY004  of its content
                        f"{path}: it is no object with an Addr"
                    )
                tls = told.get("TLSConfig")
                return Plugin(name, told["Addr"], tls if isinstance(tls, dict) else {}, self)
        return None


def _paths(directory: str, name: str, extension: str) -> tuple[str, str]:
    return f"{directory}/{name}{extension}", f"{directory}/{name}/{name}{extension}"


def _directories(path: str) -> list[str]:
    return [f"{path}/{name}" for name in _names(path) if os.path.isdir(f"{path}/{name}")]


def _names(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
