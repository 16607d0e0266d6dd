"""Valid documents, bent: whatever becomes of a manifest, a config or an archive, it is read or refused by name."""

import copy
import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knarr.engine.images.archive import Archive
from knarr.engine.images.config import read_config
from knarr.engine.images.manifest import parse
from knarr.errors import KnarrError
from knarr.types import Reference
from tests.image_files import Layout, digest, files

LAYOUT = Layout()
ENTRY = LAYOUT.image([files(a="1"), files(b="2")], created="2024-01-01T00:00:00Z", config={
    "Env": ["A=b"], "Cmd": ["x"], "Labels": {"a": "b"}, "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}},
    "Healthcheck": {"Test": ["NONE"]}, "User": "1", "WorkingDir": "/",
})  # fmt: skip
LAYOUT.name(LAYOUT.index(ENTRY), "q.io/a:1")
MANIFEST = json.loads(LAYOUT.blobs[ENTRY["digest"]])
CONFIG = json.loads(LAYOUT.blobs[MANIFEST["config"]["digest"]])
NASTY = [
    None,
    True,
    -1,
    0,
    2**63,
    1e308,
    "",
    "\0",
    "..",
    "../../etc/passwd",
    "sha256:",
    "a" * 70_000,
    [],
    {},
    [[]],
    {"": {}},
    "\ud800",
    "é",
]


def bent(document, choose):
    """The document with one to three values, keys or entries changed."""
    document = copy.deepcopy(document)
    for _ in range(choose.randint(1, 3)):
        spots, waiting = [], [document]
        while waiting:
            value = waiting.pop()
            inner = (
                list(value.items())
                if isinstance(value, dict)
                else list(enumerate(value))
                if isinstance(value, list)
                else []
            )
            spots += [(value, key) for key, _ in inner]
            waiting += [item for _, item in inner]
        if not spots:
            break
        owner, key = choose.choice(spots)
        kind = choose.randrange(4)
        if kind == 0:
            del owner[key]
        elif kind == 1 and isinstance(owner, list):
            owner.extend(copy.deepcopy(owner[key]) for _ in range(choose.choice([1, 600])) if len(owner) < 2000)
        elif kind == 2 and isinstance(owner, dict):
            owner[choose.choice(["mediaType", "manifests", "layers", "config", "x"])] = owner.pop(key)
        else:
            owner[key] = copy.deepcopy(choose.choice(NASTY))
    return json.dumps(document).encode()


FEW, MANY = 300, 20_000


def outcome(work):
    """(result, "") or (None, the words of the refusal)."""
    try:
        return work(), ""
    except KnarrError as error:
        return None, str(error)


def check(seed):
    choose = random.Random(seed)
    for document, read in (
        (MANIFEST, parse),
        (json.loads(LAYOUT.blobs[LAYOUT.entries[0]["digest"]]), parse),
        (CONFIG, lambda data: read_config(data, 2, "it")),
    ):
        data = bent(document, choose)
        result, words = outcome(lambda read=read, data=data: read(data))
        assert len(words) < 1000
        assert "\0" not in words
        json.dumps(getattr(result, "document", {}), ensure_ascii=False).encode()


def check_archive(seed):
    choose = random.Random(seed)
    contents = dict(LAYOUT.files())
    victim = choose.choice(["index.json", *[f"blobs/sha256/{ENTRY['digest'][7:]}"]])
    contents[victim] = bent(json.loads(contents[victim]), choose)
    if choose.random() < 0.5:
        del contents[choose.choice(sorted(contents))]
    blobs = {digest(data): data for data in contents.values()}
    entries = [(name, digest(data), len(data)) for name, data in contents.items()]
    archive = Archive(entries, lambda name, limit: blobs[name][:limit], lambda name: blobs[name][:4])
    found, words = outcome(lambda: archive.images(None))
    assert len(words) < 1000
    for image in found or ():
        assert {layer.blob for layer in image.candidate.layers} <= set(blobs)
        assert all(Reference.parse(str(reference)) == reference for reference in image.references)


@settings(max_examples=FEW, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_bent_documents(seed):
    check(seed)


@settings(max_examples=FEW, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_bent_archives(seed):
    check_archive(seed)


@settings(max_examples=FEW, deadline=None)
@given(st.binary(max_size=400))
def test_any_list_of_images(data):
    blobs = {digest(data): data}
    archive = Archive(
        [("manifest.json", digest(data), len(data))],
        lambda name, limit: blobs[name][:limit],
        lambda name: blobs[name][:4],
    )
    with pytest.raises(KnarrError):
        archive.images(None)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_very_many_bent_documents():
    for seed in range(MANY):
        check(seed)
        check_archive(seed)


def test_the_documents_are_good_before_they_are_bent():
    parse(json.dumps(MANIFEST).encode())
    read_config(json.dumps(CONFIG).encode(), 2, "it")
