"""The registry client against Docker's own registry: anonymous, with a password, and killed in mid-blob."""

import base64
import json
import os
import signal
import threading
import time

import pytest

from knarr import _core, errors
from tests.conftest import running_registry
from tests.image_files import MANIFEST, Layout, digest, upload
from tests.layers import Member, archive

# The password is s3cret.
HTPASSWD = "ann:$2a$05$NWdfgNf4cHfbGybAds53pOmJUCHdzZNRAnVdlFrexl8IfZL8M2dKa\n"


@pytest.fixture(scope="module")
def image():
    """A layout of two layers, its manifest's descriptor, and the layers as the core wants them."""
    archives = [
        archive(Member("a", os.urandom(30_000_000)), Member("b", b"lower")),
        archive(Member("b", b"upper"), Member("c", bytes(2_000_000))),
    ]
    layout = Layout()
    entry = layout.image(archives)
    blobs = [layer["digest"] for layer in json.loads(layout.blobs[entry["digest"]])["layers"]]
    layers, parent = [], ""
    for blob, plain in zip(blobs, archives, strict=True):
        chain_id = digest(f"{parent} {digest(plain)}".encode()) if parent else digest(plain)
        layers.append(
            (
                blob,
                len(layout.blobs[blob]),
                "application/vnd.oci.image.layer.v1.tar+gzip",
                digest(plain),
                chain_id,
                parent,
            )
        )
        parent = chain_id
    return layout, entry, layers


def client(registry, **options):
    return _core.Registry(registry.host, scheme="http", **{"timeout": 5.0, **options})


def test_an_image_is_pulled(registry, image, tmp_path):
    layout, entry, layers = image
    upload(layout, registry.host, "some/image", "1.0", entry)
    manifest = layout.blobs[entry["digest"]]
    source = client(registry)
    assert source.manifest("some/image", "1.0") == (manifest, MANIFEST, digest(manifest))
    assert source.manifest("some/image", digest(manifest))[0] == manifest
    store, progress = _core.Store(str(tmp_path / "root")), _core.Progress()
    assert store.unpack(layers, progress, source, "some/image") == [30_000_005, 2_000_005]
    assert [phase for _, phase, _, _ in progress.snapshot()] == ["done", "done"]
    for layer in layers:
        assert store.blob(layer[0], 100_000_000) == layout.blobs[layer[0]]
    assert (tmp_path / "root/snapshots" / layers[1][4][7:] / "b").read_bytes() == b"upper"


def test_what_is_not_there(registry, image):
    layout, entry, _ = image
    upload(layout, registry.host, "some/image", "1.0", entry)
    source = client(registry)
    with pytest.raises(errors.NotFound, match=r"manifest for .*/some/image:2.0 not found: manifest unknown"):
        source.manifest("some/image", "2.0")
    with pytest.raises(errors.NotFound, match="/no/image:1"):
        source.manifest("no/image", "1")
    with pytest.raises(errors.NotFound, match=f"/some/image@{digest(b'x')} not found: blob unknown"):
        source.blob("some/image", digest(b"x"), 10)


def test_a_password(image, tmp_path):
    layout, entry, _ = image
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    with running_registry(f"auth: {{htpasswd: {{realm: here, path: {tmp_path}/htpasswd}}}}\n") as server:
        upload(layout, server.host, "a/b", "1", entry, "Basic " + base64.b64encode(b"ann:s3cret").decode())
        assert client(server, username="ann", password="s3cret").manifest("a/b", "1")[1] == MANIFEST
        with pytest.raises(
            errors.Unauthorized,
            match=r"pull access denied for .*a/b, repository does not exist or may require 'docker login'",
        ):
            client(server).manifest("a/b", "1")
        with pytest.raises(errors.Unauthorized, match="refused the credentials"):
            client(server, username="ann", password="wrong").manifest("a/b", "1")


def test_a_registry_that_is_frozen_in_mid_blob(image, tmp_path):
    """Its process is stopped while layers arrive, for longer than the client's patience, and goes on."""
    layout, entry, layers = image
    with running_registry() as server:
        upload(layout, server.host, "a/b", "1", entry)
        store, progress = _core.Store(str(tmp_path / "root")), _core.Progress()
        stopped = threading.Event()

        def freeze():
            while not any(done > 1_000_000 for _, _, done, _ in progress.snapshot()):
                time.sleep(0.001)
            server.process.send_signal(signal.SIGSTOP)
            stopped.set()
            time.sleep(1.5)
            server.process.send_signal(signal.SIGCONT)

        thread = threading.Thread(target=freeze)
        thread.start()
        try:
            store.unpack(layers, progress, client(server, timeout=0.5), "a/b")
        finally:
            thread.join()
        assert stopped.is_set()
        assert all(store.has_snapshot(layer[4]) for layer in layers)
