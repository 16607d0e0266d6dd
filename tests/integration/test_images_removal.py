"""Names and images go by Docker's rules, and only what nobody needs goes with them."""

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from knarr.engine.images import embedded
from knarr.errors import Conflict, InvalidArgument, KnarrError, NotFound
from tests.image_files import Layout, files, pieces_of, simple, upload


def load(place, *archive):
    return place.run(place.images.load(pieces_of(simple(*archive))))[0]


def remove(place, name, force=False):
    return place.run(place.images.remove(name, force=force))


def names(place):
    return sorted(name for image in place.images.list() for name in image.references or [image.id])


def test_the_last_name_takes_the_image_with_it(place):
    image = load(place, "a:1", files(a="1"), files(b="2"))
    place.run(place.images.tag("a:1", "b", "2"))
    assert remove(place, "a:1") == [{"Untagged": "a:1"}]
    removed = remove(place, "b:2")
    assert removed[:2] == [{"Untagged": "b:2"}, {"Deleted": image.id}]
    assert {item["Deleted"] for item in removed[2:]} == {layer.chain_id for layer in image.layers}
    assert place.is_empty()
    with pytest.raises(NotFound, match="No such image: b:2"):
        remove(place, "b:2")


def family(place):
    """Two images out of one index: (the one that has the name a:1, the other)."""
    layout = Layout()
    entries = [layout.image([files(a=name)], architecture=name) for name in ("amd64", "arm64")]
    archive = layout.name(layout.index(*entries), "a:1").archive()
    (image,) = place.run(place.images.load(pieces_of(archive)))
    (other,) = [one for one in place.images.catalog if one.id != image.id]
    return image, other


def test_what_came_out_of_one_index_goes_together(place):
    image, other = family(place)
    place.run(place.images.tag("a:1", "b:1"))
    assert remove(place, "a:1") == [{"Untagged": "a:1"}]
    assert names(place) == ["b:1"]
    assert {"Deleted": other.id} in remove(place, "b:1")
    assert place.is_empty()
    image, other = family(place)
    assert {"Deleted": other.id} in remove(place, image.id)
    assert place.is_empty()


def test_what_a_container_needs_of_an_index_stays(place):
    image, other = family(place)
    place.users[other.id] = ["c" * 64]
    assert place.images.users(image) == 1
    assert place.run(place.images.prune({"dangling": ["false"]})) == ([], 0)
    remove(place, "a:1")
    assert names(place) == [other.id]
    place.users.clear()
    place.run(place.images.prune({}))
    assert place.is_empty()


def test_one_platform_of_an_index(place):
    image, other = family(place)
    with pytest.raises(InvalidArgument, match="Use --force to force delete"):
        place.run(place.images.remove("a:1", platforms=["linux/arm64"]))
    place.users[other.id], place.running = ["c" * 64], {"c" * 64}
    with pytest.raises(Conflict, match="cannot be forced"):
        place.run(place.images.remove("a:1", force=True, platforms=["linux/arm64"]))
    place.users.clear()
    with pytest.raises(NotFound):
        place.run(place.images.remove("a:1", force=True, platforms=["linux/s390x"]))
    assert {"Deleted": image.id} in place.run(place.images.remove("a:1", force=True, platforms=["linux/amd64"]))
    assert place.run(place.images.resolve("a:1")).id == other.id, "the name moves to what is left"
    assert place.left_over() == set()
    removed = place.run(place.images.remove("a:1", force=True, platforms=["linux/arm64"]))
    assert removed[:2] == [{"Untagged": "a:1"}, {"Deleted": other.id}]
    assert place.is_empty()


def test_a_digest_goes_with_the_last_tag_of_its_repository_for_every_platform(place, registry):
    layout = Layout()
    entry = layout.index(*(layout.image([files(a=name)], architecture=name) for name in ("amd64", "arm64")))
    reference = upload(layout, registry.host, "removal/digest", "1", entry)
    for platform in ("linux/amd64", "linux/arm64"):
        place.run(place.images.pull(reference, platform))
    place.run(place.images.tag(reference, "kept:1"))
    remove(place, reference)
    with pytest.raises(NotFound):
        place.run(place.images.resolve(f"{registry.host}/removal/digest@{entry['digest']}", "linux/arm64"))
    assert place.run(place.images.resolve("kept:1", "linux/arm64")).repo_digests == ()


def test_one_prune_at_a_time(place):
    async def both():
        return await asyncio.gather(place.images.prune({}), place.images.prune({}), return_exceptions=True)

    first, second = place.run(both())
    assert first == ([], 0)
    assert isinstance(second, Conflict)
    assert str(second) == "a prune operation is already running"
    assert place.run(place.images.prune({})) == ([], 0)


def test_by_its_id(place):
    image = load(place, "a:1")
    place.run(place.images.tag("a:1", "a:2"))
    with pytest.raises(Conflict) as caught:
        remove(place, image.id[7:19])
    assert (
        str(caught.value)
        == f"conflict: unable to delete {image.id[7:19]} (must be forced) - image is referenced in multiple repositories"
    )
    assert {"Untagged": "a:2"} in remove(place, image.id, force=True)
    assert place.is_empty()


def test_a_name_that_looks_like_an_id_is_a_name(place):
    load(place, "cafe:latest", files(a="1"))
    load(place, "other:1", files(b="1"))
    assert remove(place, "cafe")[0] == {"Untagged": "cafe:latest"}
    assert names(place) == ["other:1"]


def test_beginnings_of_ids(place):
    images = [load(place, f"a:{number}", files(a=str(number))) for number in range(20)]
    first = {}
    for image in images:
        first.setdefault(image.id[7], []).append(image)
    shared = next(group for group in first.values() if len(group) > 1)
    with pytest.raises(InvalidArgument, match="ambiguous"):
        place.run(place.images.resolve(shared[0].id[7]))
    assert place.run(place.images.resolve(shared[0].id[7:27])).id == shared[0].id
    assert place.run(place.images.resolve(shared[0].id[:20])).id == shared[0].id
    with pytest.raises(NotFound, match="No such image: 0123456789abcdef0123:latest"):
        place.run(place.images.resolve("0123456789abcdef0123"))


def test_what_containers_use_stays(place):
    image = load(place, "a:1")
    place.users[image.id] = ["f" * 64]
    with pytest.raises(Conflict) as caught:
        remove(place, "a:1")
    assert str(caught.value) == (
        f'conflict: unable to remove repository reference "a:1" (must force) - container {"f" * 12} is using its referenced image {image.id[7:19]}'
    )
    with pytest.raises(Conflict, match=r"\(must be forced\) - image is being used by stopped container f{12}$"):
        remove(place, image.id)
    place.running.add("f" * 64)
    with pytest.raises(Conflict, match=r"\(cannot be forced\) - image is being used by running container f{12}$"):
        remove(place, image.id, force=True)
    assert remove(place, "a:1", force=True) == [{"Untagged": "a:1"}]
    assert place.run(place.images.prune({"dangling": ["false"]}))[0] == []
    assert os.listdir(image.lower[0]) == ["hello"]
    place.reopen()
    assert place.run(place.images.resolve(image.id)).complete
    place.users.clear()
    assert place.run(place.images.prune({}))[0][0] == {"Deleted": image.id}
    assert place.is_empty()


def test_what_a_container_is_being_made_from_stays(place):
    image = load(place, "a:1")
    with place.images.hold(image.id):
        assert place.run(place.images.prune({"dangling": ["false"]}))[0] == []
        assert remove(place, "a:1") == [{"Untagged": "a:1"}]
        with pytest.raises(Conflict, match="is being made"):
            remove(place, image.id, force=True)
        assert os.listdir(image.lower[0]) == ["hello"]
    remove(place, image.id)
    assert place.is_empty()
    with pytest.raises(NotFound), place.images.hold(image.id):
        pass


def test_shared_layers_stay(place):
    base = files(base="1")
    load(place, "a:1", base, files(a="1"))
    other = load(place, "b:1", base, files(b="1"))
    remove(place, "a:1")
    assert [os.listdir(directory) for directory in other.lower] == [["b"], ["base"]]
    assert place.left_over() == set()


def test_prune(place):
    load(place, "keep:1", files(a="1"))
    old = load(place, "moved:1", files(b="1"))
    load(place, "moved:1", files(c="1"))
    removed, freed = place.run(place.images.prune({}))
    assert {"Deleted": old.id} in removed
    assert freed > 0
    assert names(place) == ["keep:1", "moved:1"]
    with pytest.raises(InvalidArgument, match="invalid filter"):
        place.run(place.images.prune({"name": ["x"]}))
    assert place.run(place.images.prune({"dangling": ["false"], "label": ["a=b"]}))[0] == []
    assert place.run(place.images.prune({"dangling": ["false"], "until": ["2000-01-01"]}))[0] != []
    assert place.is_empty()


def test_filters(place):
    layout = Layout()
    for number, labels in enumerate(({"a": "1"}, {"a": "2", "b": ""}, {})):
        entry = layout.image(
            [files(n=str(number))], created=f"2024-01-0{number + 1}T00:00:00Z", config={"Labels": labels}
        )
        layout.name(entry, f"q.io/team/app{number}:v{number}")
    place.run(place.images.load(pieces_of(layout.archive())))
    load(place, "plain:1")
    load(place, "plain:1", files(x="2"))

    def listed(**filters):
        return [
            image.references[0][-6:] if image.references else "none"
            for image in place.images.list(
                {name: [value] if isinstance(value, str) else value for name, value in filters.items()}
            )
        ]

    assert listed()[:3] == ["app2:v2"[-6:], "app1:v1"[-6:], "app0:v0"[-6:]]
    assert listed(label="a") == ["pp1:v1", "pp0:v0"]
    assert listed(label="a=2") == ["pp1:v1"]
    assert listed(label=["a", "b"]) == ["pp1:v1"]
    assert listed(dangling="true") == ["none"]
    assert "none" not in listed(dangling="0")
    assert listed(reference="q.io/team/*1") == ["pp1:v1"]
    assert listed(reference="q.io/*/app[12]:v?") == ["pp2:v2", "pp1:v1"]
    assert listed(reference="q.io/*") == []
    assert (
        listed(reference="docker.io/library/plain")
        == listed(reference="plain")
        == listed(reference="pl*:1")
        == ["lain:1"]
    )
    assert listed(before="q.io/team/app2:v2", label="a") == ["pp1:v1", "pp0:v0"]
    assert listed(since="q.io/team/app0:v0") == ["pp2:v2", "pp1:v1"]
    assert listed(until="2024-01-02T00:00:00Z", label="a") == ["pp0:v0"]
    for bad in ({"x": "1"}, {"dangling": "maybe"}, {"until": "soon"}, {"reference": "[a"}):
        with pytest.raises(InvalidArgument, match="invalid filter"):
            listed(**bad)
    with pytest.raises(NotFound):
        listed(before="nothing:1")


def test_a_lost_snapshot_is_made_again_or_missed(place):
    image = load(place, "a:1", files(a="1"), files(b="1"))
    place.close()
    shutil.rmtree(image.lower[0])
    place.open()
    assert not place.images.catalog.get(image.id).complete
    assert place.run(place.images.resolve("a:1")).complete
    assert os.listdir(image.lower[0]) == ["b"]
    place.close()
    shutil.rmtree(image.lower[0])
    os.unlink(place.store.blob_path(image.layers[1].blob))
    place.open()
    with pytest.raises(NotFound, match="No such image: a:1: its files are missing"):
        place.run(place.images.resolve("a:1"))
    load(place, "a:1", files(a="1"), files(b="1"))
    assert place.run(place.images.resolve("a:1")).complete
    assert place.left_over() == set()


def test_a_lost_snapshot_is_pulled_again(place, registry):
    layout = Layout()
    reference = upload(layout, registry.host, "removal/lost", "1", layout.image([files(a="1")]))
    image = place.run(place.images.pull(reference))
    place.close()
    shutil.rmtree(image.lower[0])
    os.unlink(place.store.blob_path(image.layers[0].blob))
    place.open()
    assert place.run(place.images.pull(reference)).complete
    assert os.listdir(image.lower[0]) == ["a"]


def test_what_no_record_speaks_of_is_swept(place):
    kept = load(place, "a:1")
    place.store.put_blob(b"nobody's")
    os.makedirs(f"{place.root}/snapshots/{'ab' * 32}/x")
    open(f"{place.root}/tmp/half", "w").close()
    place.reopen()
    assert place.left_over() == set()
    assert place.run(place.images.resolve("a:1")).id == kept.id


def test_the_embedded_image_is_a_last_resort(place, tmp_path, monkeypatch):
    own = tmp_path / "embedded.tar"
    own.write_bytes(simple("docker.io/library/hello:latest", files(embedded="1")))
    monkeypatch.setattr(embedded, "ARCHIVE", str(own))
    place.reopen()
    image = place.run(place.images.resolve("hello"))
    assert os.listdir(image.lower[0]) == ["embedded"]
    remove(place, "hello")
    theirs = load(place, "hello:latest", files(theirs="1"))
    assert place.run(place.images.resolve("hello")).id == theirs.id
    assert place.run(place.images.resolve("docker.io/library/hello:latest")).id == theirs.id
    remove(place, "hello:latest")
    told = []

    async def emit(message):
        told.append(message["status"])

    for _ in range(2):
        assert os.listdir(place.run(place.images.pull("hello", progress=emit)).lower[0]) == ["embedded"]
    assert [status for status in told if status.startswith("Status")] == [
        "Status: Downloaded newer image for hello:latest",
        "Status: Image is up to date for hello:latest",
    ]
    with pytest.raises(NotFound, match="No such image: hello:1"):
        place.run(place.images.resolve("hello:1"))


def test_pulls_loads_removals_and_prunes_at_once(place, registry):
    """Whatever the order: who was given an image finds its files, and at the end nothing is left over."""
    layout, base = Layout(), files(base="1" * 1000)
    references = [
        upload(layout, registry.host, f"removal/race{number}", "1", layout.image([base, files(**{f"n{number}": "1"})]))
        for number in range(3)
    ]
    archive = simple("race:load", base, files(loaded="1"))
    choose = random.Random(7)
    found = []

    async def one(kind):
        try:
            if kind == "pull":
                image = await place.images.pull(choose.choice(references))
                with place.images.hold(image.id):
                    await asyncio.sleep(choose.random() / 100)
                    found.append([os.listdir(directory) for directory in image.lower])
            elif kind == "load":
                await place.images.load(pieces_of(archive))
            elif kind == "remove":
                await place.images.remove(choose.choice([*references, "race:load"]), force=True)
            else:
                await place.images.prune({"dangling": ["false"]})
        except (NotFound, Conflict):
            pass

    async def many():
        end = time.monotonic() + 6
        while time.monotonic() < end:
            await asyncio.gather(
                *[one(choose.choice(["pull", "pull", "load", "remove", "remove", "prune"])) for _ in range(8)]
            )

    place.run(many())
    assert len(found) > 10
    assert all(["base"] in directories for directories in found)
    assert place.left_over() == set()
    known = {image.id for image in place.images.catalog}
    assert known == {row[0] for row in place.database.rows("SELECT id FROM image")}
    place.reopen()
    assert known == {image.id for image in place.images.catalog}
    assert all(image.complete for image in place.images.catalog)
    place.run(place.images.prune({"dangling": ["false"]}))
    assert place.is_empty()


CRASH = """
import asyncio, os, signal, sys
from pathlib import Path
from knarr.engine.images import ledger, pieces, pull
from knarr.store.images import ImageRecords
from tests.integration.images_place import Place

def dies(function, when):
    def wrapped(*arguments, **keywords):
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)
    return wrapped

place = Place(Path(sys.argv[1]))
place.open()
owner, name = {"save": (ImageRecords, "save"), "put": (ledger.Ledger, "_save"), "remove": (ImageRecords, "remove_image"),
               "files": (pieces.Pieces, "_remove_now")}[sys.argv[2]]
setattr(owner, name, dies(getattr(owner, name), sys.argv[3]))
if sys.argv[4] == "load":
    place.run(place.images.load(sys.argv[5]))
elif sys.argv[4] == "pull":
    place.run(place.images.pull(sys.argv[5]))
else:
    place.run(place.images.remove(sys.argv[5]))
"""


def crash(place, *arguments):
    place.close()
    try:
        done = subprocess.run(
            [sys.executable, "-c", CRASH, place.root, *arguments],
            timeout=60,
            check=False,
            cwd=os.getcwd(),
            capture_output=True,
        )
    finally:
        place.open()
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["put", "save"])
def test_a_kill_while_an_image_arrives(place, tmp_path, registry, step, when):
    layout = Layout()
    reference = upload(layout, registry.host, f"removal/kill-{step}-{when}", "1", layout.image([files(a="1")]))
    archive = tmp_path / "archive.tar"
    archive.write_bytes(simple("a:1", files(b="1")))
    recorded = (step, when) in {("save", "after"), ("put", "after")}
    crash(place, step, when, "load", str(archive))
    crash(place, step, when, "pull", reference)
    assert place.left_over() == set()
    assert names(place) == (sorted(["a:1", reference]) if recorded else [])
    assert all(image.complete for image in place.images.catalog)
    place.run(place.images.load(str(archive)))
    place.run(place.images.pull(reference))
    assert names(place) == sorted(["a:1", reference])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["remove", "files"])
def test_a_kill_while_an_image_goes(place, step, when):
    load(place, "a:1", files(a="1"), files(b="1"))
    other = load(place, "b:1", files(a="1"))
    crash(place, step, when, "remove", "a:1")
    assert place.left_over() == set()
    assert place.run(place.images.resolve("b:1")).id == other.id
    assert all(image.complete for image in place.images.catalog)
    assert os.listdir(other.lower[0]) == ["a"]
    assert names(place) == (["a:1", "b:1"] if (step, when) == ("remove", "before") else ["b:1"])


def test_kills_at_any_moment(place, registry):
    """Pulls that are killed again and again get there at last, and nothing that is recorded is missing."""
    layout = Layout()
    reference = upload(
        layout,
        registry.host,
        "removal/any",
        "1",
        layout.image(
            [files(**{f"f{number}_{part}": os.urandom(3000).hex() for number in range(30)}) for part in range(4)]
        ),
    )
    script = CRASH.partition("owner, name")[0] + "place.run(place.images.pull(sys.argv[2]))\n"
    for delay in (0.05, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4, 0.6):
        place.close()
        with subprocess.Popen(
            [sys.executable, "-c", script, place.root, reference], cwd=os.getcwd(), stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(delay)
            process.kill()
        place.open()
        assert place.left_over() == set()
        assert all(image.complete for image in place.images.catalog)
    image = place.run(place.images.pull(reference))
    assert [len(os.listdir(directory)) for directory in image.lower] == [30] * 4


def test_a_record_that_cannot_be_read_is_named(place):
    image = load(place, "a:1")
    place.database.execute("UPDATE image SET record = '{'")
    with pytest.raises(KnarrError, match=f"the record of image {image.id} cannot be read"):
        place.reopen()
    place.database.execute(
        "UPDATE image SET record = ?", (json.dumps({"config": {}, "layers": [], "blobs": [], "tagged_ns": 0}),)
    )


def test_tags(place):
    image = load(place, "a:1")
    place.run(place.images.tag(image.id[7:19], "localhost:5000/b", "2"))
    place.run(place.images.tag("a:1", "c"))
    assert place.run(place.images.resolve("c")).references == ("a:1", "c:latest", "localhost:5000/b:2")
    for repository, tag in (("A", "1"), ("a@" + image.id, ""), ("a", "b/c"), ("", "")):
        with pytest.raises(InvalidArgument):
            place.run(place.images.tag("a:1", repository, tag))
    with pytest.raises(NotFound):
        place.run(place.images.tag("none:1", "d"))
    place.reopen()
    assert place.run(place.images.resolve("c")).references == ("a:1", "c:latest", "localhost:5000/b:2")


def test_an_archive_waits_for_a_removal_that_has_begun(place, monkeypatch):
    """What is being removed looks as if it were there: nothing may be built on it."""
    load(place, "a:1", files(a="1"))
    pieces = place.images._pieces
    remove_now = pieces._remove_now

    def slowly(doomed):
        time.sleep(0.3)
        return remove_now(doomed)

    monkeypatch.setattr(pieces, "_remove_now", slowly)

    async def work():
        removal = asyncio.ensure_future(place.images.remove("a:1"))
        await asyncio.sleep(0.1)
        assert pieces._going
        await asyncio.gather(removal, place.images.load(pieces_of(simple("a:1", files(a="1")))))

    place.run(work())
    image = place.run(place.images.resolve("a:1"))
    assert os.listdir(image.lower[0]) == ["a"]
    assert all(place.store.blob_size(layer.blob) is not None for layer in image.layers)
