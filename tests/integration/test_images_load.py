"""Archives of every kind go in whole, and bad ones leave nothing."""

import asyncio
import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from knarr.errors import Corrupt, InvalidArgument, KnarrError, NotFound, Unavailable
from tests.conftest import tar_of
from tests.image_files import CONFIG, LAYER, MANIFEST, Layout, digest, files, pieces_of, saved, simple
from tests.integration.images_place import Place


def load(place, data, **keywords):
    messages = []

    async def emit(message):
        messages.append(message)

    async def work():
        return await place.images.load(pieces_of(data), emit, **keywords)

    images = place.run(work())
    return images, [message["stream"].strip() for message in messages if "stream" in message]


def test_an_oci_archive(place):
    images, lines = load(place, simple("docker.io/user/app:v1", files(a="1"), files(b="2")))
    assert lines == ["Loaded image: user/app:v1"]
    image = place.run(place.images.resolve("user/app:v1"))
    assert image == images[0]
    assert image.references == ("user/app:v1",)
    assert [sorted(os.listdir(directory)) for directory in image.lower] == [["b"], ["a"]]
    assert image.size == 2
    assert place.left_over() == set()


def test_many_images_share_layers(place):
    layout = Layout()
    base = files(base="x")
    layout.name(layout.image([base, files(one="1")]), "q.io/one:1").name(
        layout.image([base, files(two="2")]), "q.io/two:2"
    )
    _, lines = load(place, layout.archive())
    assert lines == ["Loaded image: q.io/one:1", "Loaded image: q.io/two:2"]
    assert len(place.store.snapshots()) == 3
    assert place.left_over() == set()


def test_two_names_of_one_image(place):
    layout = Layout()
    entry = layout.image([files(a="1")])
    layout.name(entry, "q.io/a:1").name(entry, "q.io/a:2")
    images, lines = load(place, layout.archive())
    assert [image.references for image in images] == [("q.io/a:1", "q.io/a:2")]
    assert len(lines) == 2


def test_a_bare_tag_is_no_name(place):
    layout = Layout()
    entry = layout.image([files(a="1")], config={"Cmd": ["x"]})
    layout.entries.append({**entry, "annotations": {"org.opencontainers.image.ref.name": "latest"}})
    images, lines = load(place, layout.archive())
    assert lines == [f"Loaded image ID: {images[0].id}"]
    assert images[0].references == ()
    assert place.run(place.images.resolve(images[0].id[7:19])).id == images[0].id


@pytest.mark.parametrize("compress", ["gzip", "zstd", ""])
def test_compressions(place, compress):
    images, _ = load(place, simple("a:1", files(a="1", b__c="2" * 100_000), compress=compress))
    assert Path(images[0].lower[0], "b/c").read_text() == "2" * 100_000


def test_a_compressed_archive(place):
    images, _ = load(place, gzip.compress(simple("a:1")))
    assert images[0].references == ("a:1",)


def test_the_platform_is_chosen_from_an_index(place):
    layout = Layout()
    arm = layout.image([files(arm="1")], architecture="arm64")
    own = layout.image([files(own="1")])
    about = {**layout.image([files(x="1")]), "platform": {"os": "unknown", "architecture": "unknown"}}
    layout.name(layout.index(about, arm, own), "a:1")
    images, _ = load(place, layout.archive())
    assert os.listdir(images[0].lower[0]) == ["own"]
    assert place.left_over() == set(), "the other platform's blobs do not stay"
    images, _ = load(place, layout.archive(), platforms=["linux/arm64"])
    assert os.listdir(images[0].lower[0]) == ["arm"]
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list entries"):
        load(place, layout.archive(), platforms=["linux/s390x"])


def test_an_index_may_be_incomplete(place):
    """docker save writes the whole index with one platform's blobs."""
    layout = Layout()
    own = layout.image([files(own="1")])
    kept = dict(layout.blobs)
    other = layout.image([files(arm="1")], architecture="arm64")
    entry = layout.index(other, own)
    layout.blobs = {**kept, entry["digest"]: layout.blobs[entry["digest"]]}
    images, _ = load(place, layout.name(entry, "a:1").archive())
    assert images[0].references == ("a:1",)


def test_what_docker_saves_of_one_platform(place):
    """Its attestation stands beside the manifest in index.json, known by an annotation of containerd's alone."""
    layout = Layout()
    entry = layout.image([files(a="1")])
    statement = layout.add(b"{}", "application/vnd.in-toto+json")
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": layout.add(b"{} ", CONFIG), "layers": [statement]}
    about = layout.document(manifest, MANIFEST, annotations={"io.containerd.manifest.subject": entry["digest"]})
    (image,), _ = load(place, layout.name(entry, "a:1").name(about, "a:1").archive())
    assert image.references == ("a:1",)
    assert image.manifest_digest == entry["digest"]


def test_an_index_of_an_index(place):
    layout = Layout()
    layout.name(layout.index(layout.index(layout.image([files(a="1")]))), "a:1")
    assert len(load(place, layout.archive())[0]) == 1
    deeper = Layout()
    deeper.name(deeper.index(deeper.index(deeper.index(deeper.image([files(a="1")])))), "a:1")
    with pytest.raises(Corrupt, match="deep"):
        load(place, deeper.archive())


@pytest.mark.parametrize("linked", [False, True])
def test_docker_archives(place, linked):
    layer = files(a="1")
    images, lines = load(place, saved([layer, files(b="2"), layer], ["q.io/x:1", "x:2"], linked=linked))
    assert lines == ["Loaded image: q.io/x:1", "Loaded image: x:2"]
    assert len(images[0].lower) == 3
    assert place.left_over() == set()


def test_a_docker_archive_without_names(place):
    images, lines = load(place, saved([files(a="1")], None))
    assert lines == [f"Loaded image ID: {images[0].id}"]


def test_an_image_without_layers(place):
    images, _ = load(place, saved([], ["empty:1"]))
    assert images[0].lower == ()


def test_loading_twice_changes_nothing(place):
    data = simple("a:1")
    first, _ = load(place, data)
    second, _ = load(place, data)
    assert first[0].id == second[0].id
    assert len(place.images.list()) == 1


def test_a_name_moves_to_the_newer_image(place):
    old, _ = load(place, simple("a:1", files(old="1")))
    new, _ = load(place, simple("a:1", files(new="1")))
    assert place.run(place.images.resolve("a:1")).id == new[0].id
    assert place.run(place.images.resolve(old[0].id)).references == ()


def broken(change):
    """An archive whose layout was changed after it was made."""
    layout = Layout()
    layout.name(layout.image([files(a="1"), files(b="2")]), "a:1")
    change(layout)
    return layout.archive()


def blob_of(layout, kind):
    """The digest of the manifest, the config or the last layer."""
    manifest = layout.entries[0]["digest"]
    document = json.loads(layout.blobs[manifest])
    return {"manifest": manifest, "config": document["config"]["digest"], "layer": document["layers"][-1]["digest"]}[
        kind
    ]


def replace_blob(kind, data):
    return lambda layout: layout.blobs.update({blob_of(layout, kind): data})


def drop_blob(kind):
    return lambda layout: layout.blobs.pop(blob_of(layout, kind))


def lying_layer():
    layout = Layout()
    plain = files(a="1")
    body = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [digest(b"something else")]},
    }
    manifest = {
        "schemaVersion": 2,
        "config": layout.document(body, "application/vnd.oci.image.config.v1+json"),
        "layers": [layout.add(plain, LAYER)],
    }
    return layout.name(layout.document(manifest, "application/vnd.oci.image.manifest.v1+json"), "a:1").archive()


def without_named_file(name):
    return tar_of([entry for entry in Layout().name(Layout().image([]), "a:1").files() if entry[0] != name])


BROKEN = {
    "empty": (lambda: b"", InvalidArgument, "no archive"),
    "noise": (lambda: os.urandom(5000), Corrupt, None),
    "zeros": (lambda: bytes(20_000), Corrupt, "no image"),
    "text": (lambda: b"<html>not found</html>" * 100, Corrupt, None),
    "truncated": (lambda: simple("a:1", files(a="x" * 9000))[:4000], Corrupt, None),
    "truncated gzip": (lambda: gzip.compress(simple("a:1", files(a="x" * 9000)))[:-200], Corrupt, None),
    "nothing in it": (lambda: tar_of([("README", b"hi")]), Corrupt, "neither index.json"),
    "no manifest blob": (lambda: broken(drop_blob("manifest")), Corrupt, "the manifest sha256:[0-9a-f]{64} is missing"),
    "no config blob": (lambda: broken(drop_blob("config")), Corrupt, "the image config sha256:[0-9a-f]{64} is missing"),
    "no layer blob": (lambda: broken(drop_blob("layer")), Corrupt, "the layer sha256:[0-9a-f]{64} is missing"),
    "wrong manifest": (lambda: broken(replace_blob("manifest", b"{}")), Corrupt, "is corrupt: its digest is"),
    "wrong config": (lambda: broken(replace_blob("config", b"{}")), Corrupt, "is corrupt: its digest is"),
    "wrong layer": (lambda: broken(replace_blob("layer", b"x")), Corrupt, "is corrupt: its digest is"),
    "wrong diff ID": (lying_layer, Corrupt, None),
    "index is not JSON": (lambda: tar_of([("oci-layout", b"{}"), ("index.json", b"{")]), Corrupt, "index.json is not valid JSON"),
    "index is a list": (lambda: tar_of([("oci-layout", b"{}"), ("index.json", b"[]")]), Corrupt, "index.json is not a JSON object"),
    "no images listed": (lambda: Layout().archive(), Corrupt, "lists no image"),
    "hostile name": (lambda: broken(lambda layout: layout.entries[0]["annotations"].update({"io.containerd.image.name": "../../x:1"})), Corrupt, "invalid reference"),
    "manifest.json is not JSON": (lambda: tar_of([("manifest.json", b"[" * 100_000)]), Corrupt, "manifest.json is not valid JSON"),
    "manifest.json is empty": (lambda: tar_of([("manifest.json", b"[]")]), Corrupt, "lists 0 images"),
    "manifest.json names nothing": (lambda: tar_of([("manifest.json", b"[{}]")]), Corrupt, "Config is not the name"),
    "manifest.json climbs": (lambda: tar_of([("manifest.json", b'[{"Config": "../../../etc/passwd", "Layers": []}]')]), Corrupt, "is missing"),
    "RepoTags lie": (lambda: saved([files(a="1")], ["UPPER:1"]), Corrupt, "must be lowercase"),
    "RepoTags digest": (lambda: saved([files(a="1")], ["a@" + digest(b"")]), Corrupt, "no tag"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_archive_is_named_and_leaves_nothing(place, name):
    make, kind, words = BROKEN[name]
    with pytest.raises(kind, match=words):
        load(place, make())
    assert place.is_empty()


def test_a_bad_image_leaves_what_was_there_before(place):
    load(place, simple("keep:1", files(a="1")))
    layout = Layout()
    layout.name(layout.image([files(a="1"), files(b="2")]), "bad:1")
    layout.blobs[blob_of(layout, "config")] = b"{}"
    with pytest.raises(Corrupt):
        load(place, layout.archive())
    assert place.left_over() == set()
    assert place.run(place.images.resolve("keep:1")).complete


def test_a_client_that_goes_away_leaves_nothing(place):
    data = simple("a:1", files(a="x" * 100_000), compress="")

    async def slow():
        async for chunk in pieces_of(data, 1000):
            await asyncio.sleep(0.01)
            yield chunk

    async def work():
        task = asyncio.ensure_future(place.images.load(slow()))
        await asyncio.sleep(0.1)
        assert os.listdir(f"{place.root}/tmp")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    place.run(work())
    assert place.is_empty()


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path):
    with Place.on_small_disk(tmp_path, "8m") as place:
        with pytest.raises(Unavailable, match=r"no room|file system is full"):
            load(place, simple("a:1", files(a=os.urandom(6 << 20).hex())))
        with pytest.raises(KnarrError, match=r"no room|file system is full"):
            load(place, simple("a:1", files(a=os.urandom(1 << 20).hex() * 3)))
        assert place.is_empty()
        load(place, simple("a:1", files(a="1")))


def test_links_in_an_archive_do_not_reach_the_host(place):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("manifest.json")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(info)
    with pytest.raises(Corrupt):
        load(place, stream.getvalue())
    assert place.is_empty()


def save(place, *names):
    async def work():
        return b"".join([piece async for piece in place.images.save(names)])

    return place.run(work())


def test_what_is_saved_can_be_loaded(place, tmp_path):
    big = files(big="x" * 3_000_000, a="1")
    load(place, simple("q.io/a:1", big, files(b="2"), config={"Cmd": ["x"]}, compress="zstd"))
    load(place, saved([big], ["q.io/a:2", "old:1"]))
    data = save(place, "q.io/a", "old:1")
    with Place(tmp_path / "other") as other:
        _, lines = load(other, data)
        assert sorted(lines) == ["Loaded image: old:1", "Loaded image: q.io/a:1", "Loaded image: q.io/a:2"]
        for name in ("q.io/a:1", "old:1"):
            assert other.run(other.images.resolve(name)).id == place.run(place.images.resolve(name)).id
        assert (
            other.run(other.images.resolve("q.io/a:1")).manifest_digest
            == place.run(place.images.resolve("q.io/a:1")).manifest_digest
        )
    with tarfile.open(fileobj=io.BytesIO(data)) as whole:
        kept = [entry for entry in whole if entry.name not in {"oci-layout", "index.json"}]
        only_docker = tar_of([(entry.name, whole.extractfile(entry).read()) for entry in kept])
    with Place(tmp_path / "docker") as other:
        assert len(load(other, only_docker)[0]) == 2


def test_what_is_saved_by_id_has_no_name(place, tmp_path):
    images, _ = load(place, simple("q.io/a:1"))
    with Place(tmp_path / "other") as other:
        assert load(other, save(place, images[0].id))[1] == [f"Loaded image ID: {images[0].id}"]


def test_what_cannot_be_saved(place):
    images, _ = load(place, simple("q.io/a:1"))
    for names, kind in ((["none"], NotFound), ([], InvalidArgument), (["A"], InvalidArgument)):
        with pytest.raises(kind):
            save(place, *names)
    os.unlink(place.store.blob_path(images[0].layers[0].blob))
    with pytest.raises(Corrupt, match="is missing"):
        save(place, "q.io/a:1")


def test_a_docker_archive_for_another_platform(place):
    with pytest.raises(NotFound, match="the archive has no image for linux/s390x"):
        load(place, saved([files(a="1")], ["a:1"]), platforms=["linux/s390x"])
    assert place.is_empty()
