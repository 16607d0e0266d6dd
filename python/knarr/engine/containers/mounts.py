"""Which mounts a container gets, resolved when it is made.

Sources: `Binds`, `Mounts`, `Tmpfs`, `VolumesFrom` and the image's volumes.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import TYPE_CHECKING, Any

from knarr.errors import InvalidArgument
from knarr.types import VolumeName

if TYPE_CHECKING:
    from knarr.store.containers import (
        BindOptions,
        Config,
        ContainerRecord,
        HostConfig,
        Mount,
        MountPoint,
        TmpfsOptions,
        Wish,
    )

__all__ = ["resolve", "surrounds", "tmpfs_options"]

OPTIONS_OF = {"BindOptions": "bind", "VolumeOptions": "volume", "TmpfsOptions": "tmpfs", "ImageOptions": "image"}
MATCH_USER = "match-user"
PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_BIND_MODES = {"ro", "rw", "z", "Z", "nocopy", "rbind", "bind", "cached", "delegated", "consistent", *PROPAGATIONS}
_TMPFS_FLAGS = {
    "ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "atime", "nodiratime", "diratime",
    "relatime", "strictatime", "sync", "async",
}  # fmt: skip
_TMPFS_VALUES = re.compile(r"(size|mode|uid|gid|nr_inodes|nr_blocks|mpol|huge)=[A-Za-z0-9%:,=_-]+")


def resolve(
    config: Config,
    host: HostConfig,
    sources: list[tuple[ContainerRecord, bool]],
    *,
    read_only_recursive: bool = True,
    data_root: str = "",
) -> list[MountPoint]:
    """The mounts that a request asks for. A volume without a name is anonymous: its maker names it.

    read_only_recursive: whether a read-only bind is so all the way down, unless it says otherwise.
    data_root: the engine's; where a bind holds it or lies in it, what is unmounted there goes from the container too.
    sources: the containers of VolumesFrom, and whether their volumes are only read. Paths that binds
    of `Binds` miss on the host are made; those of `Mounts` must be there, as with Docker.
    """
    found: dict[str, MountPoint] = {}
    for record, read_only in sources:
        for point in record.mounts:
            if point["type"] != "tmpfs":
                inherited = {**point, "read_only": point["read_only"] or read_only, "no_copy": True, "mode": ""}
                found[point["destination"]] = inherited  # type: ignore[assignment]
    asked: dict[str, MountPoint] = {}
    for text in host["Binds"] or ():
        _add(asked, _bind(text, read_only_recursive, host["VolumeDriver"]))
    for mount in host["Mounts"] or ():
        _add(asked, _mount(mount, read_only_recursive))
    for destination, options in (host["Tmpfs"] or {}).items():
        _destination(destination, "")
        _add(
            asked,
            _point("tmpfs", destination, options=tmpfs_options(options), mode=options, listed=False),
        )
    for point in asked.values():
        if point["type"] == "bind":
            _follow(point, data_root)
    found |= asked
    for destination in config["Volumes"] or {}:
        path = _destination(destination, _of("volume"))
        if path not in found:
            found[path] = _point("volume", path, wish=_wish(host["VolumeDriver"]))
    return list(found.values())


def _follow(point: MountPoint, data_root: str) -> None:
    """Settle the propagation of a bind. InvalidArgument in Docker's words where it would keep our mounts busy."""
    source = point["source"]
    ours = surrounds(source, data_root)
    if not point["propagation"]:
        point["propagation"] = "rslave" if ours else "rprivate"
    elif ours and point["propagation"] not in ("rslave", "rshared"):
        raise InvalidArgument(
            'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is within '
            f'the daemon root, daemon root: "{data_root}", bind mount source: "{source}", '
            f'propagation: "{point["propagation"]}"'
        )


def surrounds(source: str, data_root: str) -> bool:
    """Whether a path lies in the data root, or that in it."""
    inside, outside = f"{source.rstrip('/')}/", f"{data_root}/"
    return bool(data_root) and (inside.startswith(outside) or outside.startswith(inside))


def _add(points: dict[str, MountPoint], point: MountPoint) -> None:
    if point["destination"] in points:
        raise InvalidArgument(f"Duplicate mount point: {point['destination']}")
    points[point["destination"]] = point


def _point(kind: str, destination: str, **values: Any) -> MountPoint:
    point: MountPoint = {
        "type": kind,
        "name": "",
        "source": "",
        "destination": _destination(destination, _of(kind)),
        "mode": "",
        "read_only": False,
        "recursive_read_only": False,
        "propagation": "",
        "recursive": True,
        "no_copy": False,
        "options": [],
        "listed": True,
    }
    point.update(values)  # type: ignore[typeddict-item]
    return point


def _destination(path: str, what: str) -> str:
    """A destination in its shortest form. InvalidArgument, which begins with `what`."""
    if not path.startswith("/") or "\0" in path:
        raise InvalidArgument(f"{what}invalid mount path: '{path}' mount path must be absolute")
    clean = posixpath.normpath(path).replace("//", "/")
    if clean == "/":
        raise InvalidArgument(f"{what}invalid specification: destination can't be '/'")
    return clean


def _of(kind: str) -> str:
    return f'invalid mount config for type "{kind}": '


def _wish(driver: str, options: dict[str, str] | None = None, labels: dict[str, str] | None = None) -> Wish:
    return {"driver": driver, "options": options or {}, "labels": labels or {}}


def _bind(text: str, read_only_recursive: bool, driver: str) -> MountPoint:
    """`SOURCE:DESTINATION[:MODE]`, `NAME:DESTINATION[:MODE]`, or `DESTINATION` for an anonymous volume."""
    parts = text.split(":")
    if len(parts) == 1:
        return _point("volume", parts[0], wish=_wish(driver))
    if len(parts) > 3 or not parts[0] or not parts[1] or (len(parts) == 3 and not parts[2]):
        raise InvalidArgument(f'invalid volume specification: "{text}"')
    source, destination, mode = parts[0], parts[1], parts[2] if len(parts) == 3 else ""
    words = [word for word in mode.split(",") if word]
    mapped = f"idmap={MATCH_USER}" in words
    for word in words:
        if word not in _BIND_MODES and word != f"idmap={MATCH_USER}":
            raise InvalidArgument(f"invalid mode: {mode}")
    if "ro" in words and "rw" in words:
        raise InvalidArgument(f"invalid mode: {mode}")
    kind = "bind" if source.startswith("/") else "volume"
    _destination(destination, f"invalid volume specification: '{text}': {_of(kind)}")
    propagation = [word for word in words if word in PROPAGATIONS]
    if len(propagation) > 1:
        raise InvalidArgument(f"invalid mode: {mode}")
    read_only = "ro" in words
    if source.startswith("/"):
        if "nocopy" in words:
            raise InvalidArgument(f"invalid mode: {mode}: nocopy is for volumes")
        recursive = "bind" not in words and not mapped  # what is mounted below keeps its IDs, so it stays away
        path = os.path.normpath(source)
        try:
            os.makedirs(path, 0o755, exist_ok=True)
        except FileExistsError:
            pass  # a file, which may be bound as well
        except OSError as error:
            raise InvalidArgument(f"error while creating mount source path '{path}': {error.strerror}") from error
        return _point(
            "bind",
            destination,
            source=path,
            mode=mode,
            read_only=read_only,
            recursive_read_only=read_only and read_only_recursive,
            propagation=propagation[0] if propagation else "",
            recursive=recursive,
            **_id_map(mapped),
        )
    if propagation:
        raise InvalidArgument(f"invalid mode: {mode}: propagation is for binds")
    if mapped:
        raise InvalidArgument(f"invalid mode: {mode}: idmap is for binds")
    return _point(
        "volume",
        destination,
        name=VolumeName(source),
        mode=mode or "z",
        read_only=read_only,
        no_copy="nocopy" in words,
        wish=_wish(driver),
    )


def _mount(mount: Mount, read_only_recursive: bool) -> MountPoint:
    kind, target, source = mount.get("Type") or "", mount.get("Target") or "", mount.get("Source") or ""
    read_only = bool(mount.get("ReadOnly"))
    if not target:
        raise InvalidArgument(f'invalid mount config for type "{kind}": field Target must not be empty')
    _destination(target, _of(kind))
    for name, owner in OPTIONS_OF.items():
        if mount.get(name) is not None and kind != owner:
            raise InvalidArgument(f'{name} must not be specified on mount type "{kind}"')
    if mount.get("Consistency") not in (None, "", "default", "consistent", "cached", "delegated"):
        raise InvalidArgument(f'invalid mount config for type "{kind}": invalid consistency: {mount["Consistency"]}')
    if kind == "bind":
        return _mount_bind(target, source, read_only, mount.get("BindOptions") or {}, read_only_recursive)
    if kind == "volume":
        options = mount.get("VolumeOptions") or {}
        config = options.get("DriverConfig") or {}
        name = VolumeName(source) if source else ""
        subpath = options.get("Subpath") or ""
        if subpath and not name:
            raise InvalidArgument(f"{_of(kind)}must not set Subpath when using anonymous volumes")
        return _point(
            "volume",
            target,
            name=name,
            mode="z",
            read_only=read_only,
            no_copy=bool(options.get("NoCopy")),
            subpath=_subpath(subpath, kind),
            wish=_wish(config.get("Name") or "", config.get("Options"), options.get("Labels")),
        )
    if kind == "tmpfs":
        if source:
            raise InvalidArgument('invalid mount config for type "tmpfs": field Source must not be specified')
        return _point("tmpfs", target, options=_tmpfs(mount.get("TmpfsOptions") or {}, read_only), read_only=read_only)
    if kind == "image":
        if not source:
            raise InvalidArgument(f"{_of(kind)}field Source must not be empty")
        subpath = _subpath((mount.get("ImageOptions") or {}).get("Subpath") or "", kind)
        return _point("image", target, name=source, read_only=True, propagation="rprivate", subpath=subpath)
    raise InvalidArgument(f'invalid mount config for type "{kind}": mount type unknown')


def _subpath(path: str, kind: str) -> str:
    """A path in a volume or an image, to be looked up there when the container starts."""
    if not path:
        return ""
    parts = posixpath.normpath(path).split("/")
    if path.startswith("/") or ".." in parts or "," in path or "\0" in path:
        raise InvalidArgument(f"{_of(kind)}subpath must be a relative path within the volume: {path!r}")
    return "/".join(parts)


def _mount_bind(
    target: str, source: str, read_only: bool, options: BindOptions, read_only_recursive: bool
) -> MountPoint:
    if not source:
        raise InvalidArgument('invalid mount config for type "bind": field Source must not be empty')
    if not source.startswith("/"):
        raise InvalidArgument(
            f"invalid mount config for type \"bind\": invalid mount path: '{source}' mount path must be absolute"
        )
    path = os.path.normpath(source)
    if not os.path.exists(path):
        if not options.get("CreateMountpoint"):
            raise InvalidArgument(f'invalid mount config for type "bind": bind source path does not exist: {path}')
        os.makedirs(path, 0o755, exist_ok=True)
    propagation = options.get("Propagation") or ""
    if propagation not in ("", *PROPAGATIONS):
        raise InvalidArgument(f'invalid mount config for type "bind": invalid propagation mode: {propagation}')
    id_map = options.get("IDMap") or ""
    if id_map not in ("", MATCH_USER):
        raise InvalidArgument(
            f'invalid mount config for type "bind": invalid IDMap: {id_map}: "{MATCH_USER}" is the one that there is'
        )
    recursive = not options.get("NonRecursive") and not id_map  # what is mounted below keeps its IDs, so it stays away
    forced = bool(options.get("ReadOnlyForceRecursive"))
    if options.get("ReadOnlyNonRecursive") and (forced or not read_only):
        raise InvalidArgument(
            "mount options conflict: ReadOnlyNonRecursive needs ReadOnly, and no ReadOnlyForceRecursive"
        )
    if forced and not (read_only and recursive and propagation in ("", "rprivate")):
        raise InvalidArgument("mount options conflict: ReadOnlyForceRecursive needs ReadOnly and propagation rprivate")
    return _point(
        "bind",
        target,
        source=path,
        read_only=read_only,
        recursive_read_only=read_only
        and recursive
        and (forced or (read_only_recursive and not options.get("ReadOnlyNonRecursive"))),
        propagation=propagation,
        recursive=recursive,
        **_id_map(bool(id_map)),
    )


def _id_map(wanted: bool) -> dict[str, str]:
    return {"id_map": MATCH_USER} if wanted else {}


def _tmpfs(options: TmpfsOptions, read_only: bool) -> list[str]:
    words = ["ro"] if read_only else []
    if size := options.get("SizeBytes"):
        words.append(f"size={int(size)}")
    if mode := options.get("Mode"):
        words.append(f"mode={int(mode):o}")
    words += ["=".join(pair) for pair in options.get("Options") or ()]
    return tmpfs_options(",".join(words))


def tmpfs_options(text: str) -> list[str]:
    """The options of a tmpfs: safe ones, then those that were asked for. Raises InvalidArgument for others."""
    words = [word for word in text.split(",") if word]
    for word in words:
        if word not in _TMPFS_FLAGS and not _TMPFS_VALUES.fullmatch(word):
            raise InvalidArgument(f'invalid tmpfs option "{word}"')
    opposite = {"noexec": "exec", "nosuid": "suid", "nodev": "dev"}
    return [word for word, other in opposite.items() if other not in words and word not in words] + words
