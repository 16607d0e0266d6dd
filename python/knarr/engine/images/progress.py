"""The messages of pulls and pushes, as Docker words them: one reporter for each client that listens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

Message = dict[str, Any]
_ORDER = {"waiting": 0, "downloading": 1, "downloaded": 2, "extracting": 3, "done": 4, "exists": 4}


class Reporter:
    """Turns snapshots of `_core.Progress` into what has changed since the last one."""

    def __init__(self) -> None:
        self._stage: dict[str, int] = {}  # layer → the highest stage that was told
        self._told: dict[str, tuple[str, int]] = {}

    def messages(self, snapshot: Sequence[tuple[str, str, int, int]]) -> Iterator[Message]:
        """The messages that bring a client from the last snapshot to this one."""
        seen: set[str] = set()
        for digest, phase, done, total in snapshot:
            name = digest[7:19]
            if name not in seen:  # an empty layer may stand in an image many times
                seen.add(name)
                yield from self._layer(name, phase, done, total)

    def _layer(self, name: str, phase: str, done: int, total: int) -> Iterator[Message]:
        stage = _ORDER.get(phase, 0)
        before = self._stage.get(name, -1)
        if before >= _ORDER["done"]:
            return
        if phase == "exists":
            yield layer_message("Already exists", name)
        else:
            if before < 0:
                yield layer_message("Pulling fs layer", name)
            if stage == 1:
                yield from self._moved("Downloading", name, done, total)
            if before < _ORDER["downloaded"] <= stage:
                yield layer_message("Verifying Checksum", name)
                yield layer_message("Download complete", name)
            if stage == _ORDER["extracting"]:
                yield from self._moved("Extracting", name, done, total)
            if phase == "done":
                yield layer_message("Pull complete", name)
        self._stage[name] = max(stage, before)

    def _moved(self, status: str, name: str, done: int, total: int) -> Iterator[Message]:
        if self._told.get(name) != (status, done):
            self._told[name] = (status, done)
            yield layer_message(status, name, {"current": done, **({"total": total} if total else {})})


class PushReporter:
    """The same for a push. `shown` are the blobs that a client hears of, `sources` where each may be mounted from."""

    def __init__(self, shown: Container[str], sources: Mapping[str, str]) -> None:
        self._shown = shown
        self._sources = sources
        self._told: dict[str, Message] = {}

    def preparing(self, digest: str) -> Message:
        """The first that is heard of a layer."""
        return layer_message("Preparing", digest[7:19])

    def messages(self, snapshot: Sequence[tuple[str, str, int, int]]) -> Iterator[Message]:
        for digest, phase, done, total in snapshot:
            if digest in self._shown:
                message = self._message(digest, phase, done, total)
                if self._told.get(digest) != message:
                    self._told[digest] = message
                    yield message

    def _message(self, digest: str, phase: str, done: int, total: int) -> Message:
        name = digest[7:19]
        if phase == "uploading":
            return layer_message("Pushing", name, {"current": done, "total": total})
        status = {"done": "Pushed", "exists": "Layer already exists", "waiting": "Waiting"}.get(phase)
        return layer_message(status or f"Mounted from {self._sources.get(digest, '')}", name)


def layer_message(status: str, name: str, detail: Message | None = None) -> Message:
    return {"status": status, "progressDetail": detail or {}, "id": name}
