"""Images as files: layers, manifests, OCI layouts and docker archives made by tests, right and wrong."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import tarfile
import urllib.request
from dataclasses import dataclass, field

from tests.conftest import ARCHITECTURE, tar_of

OCI = "application/vnd.oci.image"
MANIFEST = f"{OCI}.manifest.v1+json"
INDEX = f"{OCI}.index.v1+json"
CONFIG = f"{OCI}.config.v1+json"
LAYER = f"{OCI}.layer.v1.tar"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def zstd(data: bytes) -> bytes:
    """A zstd frame of raw blocks: valid, and made without a library."""
    frame = bytearray(b"\x28\xb5\x2f\xfd\xa0" + len(data).to_bytes(4, "little"))
    blocks = [data[start : start + 65536] for start in range(0, len(data), 65536)] or [b""]
    for number, block in enumerate(blocks):
        frame += ((len(block) << 3) | (number == len(blocks) - 1)).to_bytes(3, "little") + block
    return bytes(frame)


@dataclass
class Layout:
    """An OCI layout in memory; `blobs` may be changed to make it wrong."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    entries: list[dict] = field(default_factory=list)

    def add(self, data: bytes, media_type: str, **more) -> dict:
        self.blobs[digest(data)] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}

    def document(self, value: object, media_type: str, **more) -> dict:
        return self.add(json.dumps(value).encode(), media_type, **more)

    def image(
        self,
        layers: list[bytes],
        *,
        architecture: str = ARCHITECTURE,
        compress: str = "gzip",
        created: str = "",
        config=None,
        **document,
    ) -> dict:
        """The descriptor of a manifest for an image of these layers (plain tars)."""
        pack = {"gzip": lambda data: gzip.compress(data, 1, mtime=0), "zstd": zstd, "": bytes}[compress]
        kind = LAYER + (f"+{compress}" if compress else "")
        body = {
            "os": "linux", "architecture": architecture, "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
            "history": [{"created_by": f"layer {number}"} for number, _ in enumerate(layers)],
        } | ({"created": created} if created else {}) | document  # fmt: skip
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST, "config": self.document(body, CONFIG),
            "layers": [self.add(pack(layer), kind) for layer in layers],
        }  # fmt: skip
        return self.document(manifest, MANIFEST, platform={"os": "linux", "architecture": architecture})

    def index(self, *entries: dict, **more) -> dict:
        return self.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)}, INDEX, **more)

    def name(self, entry: dict, reference: str = "") -> Layout:
        annotations = {"io.containerd.image.name": reference} if reference else {}
        self.entries.append({**entry, "annotations": {**entry.get("annotations", {}), **annotations}})
        return self

    def files(self) -> list[tuple[str, bytes]]:
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": self.entries}
        found = [("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'), ("index.json", json.dumps(index).encode())]
        return found + [(f"blobs/sha256/{name[7:]}", data) for name, data in self.blobs.items()]

    def archive(self) -> bytes:
        return tar_of(self.files())


def files(**contents: str) -> bytes:
    """A layer of small files; `a__b` is the path a/b, None as content a whiteout."""
    entries = []
    for name, text in contents.items():
        path = name.replace("__", "/")
        if text is None:
            head, _, tail = path.rpartition("/")
            entries.append((f"{head}/.wh.{tail}" if head else f".wh.{tail}", b""))
        else:
            entries.append((path, text.encode()))
    return tar_of(entries)


def simple(reference: str = "", *layers: bytes, **keywords) -> bytes:
    """An OCI archive of one image."""
    layout = Layout()
    return layout.name(layout.image(list(layers) or [files(hello="world")], **keywords), reference).archive()


def saved(layers: list[bytes], tags: list[str] | None, *, linked: bool = False, config: dict | None = None) -> bytes:
    """What docker save wrote before it wrote OCI layouts: a directory a layer, equal layers as links."""
    body = {
        "os": "linux",
        "architecture": ARCHITECTURE,
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
    }
    data = json.dumps(body).encode()
    entries, names, seen = [(f"{digest(data)[7:]}.json", data)], [], {}
    for number, layer in enumerate(layers):
        name = f"{number:064x}/layer.tar"
        names.append(name)
        info = tarfile.TarInfo(name)
        if linked and layer in seen:
            info.type, info.linkname = tarfile.SYMTYPE, f"../{seen[layer]}"
            entries.append((info, None))
        else:
            seen[layer] = name
            entries.append((info, layer))
    manifest = [{"Config": f"{digest(data)[7:]}.json", "RepoTags": tags, "Layers": names}]
    return tar_of([*entries, ("manifest.json", json.dumps(manifest).encode())])


async def pieces_of(data: bytes, size: int = 5000):
    stream = io.BytesIO(data)
    while chunk := stream.read(size):
        yield chunk


def upload(layout: Layout, host: str, repository: str, tag: str, entry: dict, authorization: str = "") -> str:
    """Push everything of a layout to a registry on loopback, and one entry under a tag; the reference to pull."""

    def send(method: str, path: str, data: bytes = b"", kind: str = "application/octet-stream"):
        url = path if path.startswith("http") else f"http://{host}{path}"
        request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": kind})
        if authorization:
            request.add_header("Authorization", authorization)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers

    manifests = {}
    for name, data in layout.blobs.items():
        with contextlib.suppress(ValueError, AttributeError):
            kind = json.loads(data).get("mediaType", "")
            if kind in {MANIFEST, INDEX}:
                manifests[name] = (data, kind)
                continue
        location = send("POST", f"/v2/{repository}/blobs/uploads/")["Location"]
        send("PUT", f"{location}{'&' if '?' in location else '?'}digest={name}", data)
    for name, (data, kind) in sorted(manifests.items(), key=lambda item: item[1][1] == INDEX):
        send("PUT", f"/v2/{repository}/manifests/{name}", data, kind)
    data, kind = manifests[entry["digest"]]
    send("PUT", f"/v2/{repository}/manifests/{tag}", data, kind)
    return f"{host}/{repository}:{tag}"
