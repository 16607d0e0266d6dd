"""Manifests and indexes: what is read, what is refused, and which platform is chosen."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knarr.engine.images.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Index,
    Manifest,
    parse,
    select,
)
from knarr.errors import Corrupt, KnarrError, NotFound, Unsupported
from knarr.types import Platform

DIGEST = "sha256:" + "ab" * 32
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 2}
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": DIGEST, "size": 10}


def manifest(**changes):
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
    return json.dumps({name: value for name, value in (document | changes).items() if value is not ...}).encode()


def index(*entries, **changes):
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}
    return json.dumps({name: value for name, value in (document | changes).items() if value is not ...}).encode()


def entry(platform=None, digest=DIGEST, **more):
    found = {"mediaType": OCI_MANIFEST, "digest": digest, "size": 7, **more}
    if platform:
        system, architecture, *variant = platform.split("/")
        found["platform"] = {"os": system, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
    return found


def test_a_manifest():
    for data, kind in [(manifest(), ""), (manifest(mediaType=...), OCI_MANIFEST), (manifest(mediaType=DOCKER_MANIFEST), DOCKER_MANIFEST),
                       (manifest(), "application/json")]:  # fmt: skip
        parsed = parse(data, kind)
        assert isinstance(parsed, Manifest)
        assert parsed.config.digest == DIGEST
        assert [layer.size for layer in parsed.layers] == [10]


def test_an_index():
    parsed = parse(index(entry("linux/amd64"), mediaType=DOCKER_LIST), DOCKER_LIST)
    assert isinstance(parsed, Index)
    assert parsed.manifests[0].platform == Platform("linux", "amd64")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not valid JSON"),
        (b"<html>", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"[" * 200_000, "nested too deeply|not valid JSON|more than"),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, "nested"),
        (b'{"schemaVersion": NaN}', "not valid JSON"),
        (b'{"schemaVersion": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"schemaVersion": 1e999}', "not valid JSON"),
        (b'{"schemaVersion": 2, "x": "\\ud800"}', "not Unicode"),
        (b" " * (4 << 20) + b"{}", "bytes: more than"),
        (b"[" + b"1," * 300_000 + b"1]", "values"),
        (b"{}", "schemaVersion"),
        (manifest(schemaVersion="2"), "schemaVersion"),
        (manifest(mediaType=7), "mediaType"),
        (manifest(mediaType=OCI_INDEX), "calls itself"),
        (index(mediaType=OCI_MANIFEST), "calls itself"),
        (manifest(manifests=[]), "both"),
        (b'{"schemaVersion": 2}', "neither"),
        (manifest(layers=...), "layers is not a list"),
        (manifest(config=...), "config is not an object"),
        (manifest(layers={}), "layers is not a list"),
        (manifest(layers=[LAYER] * 501), "501 layers are refused"),
        (index(*[entry()] * 1001), "1001 manifests are refused"),
        (manifest(layers=[7]), r"layers\[0\] is not an object"),
        (manifest(layers=[LAYER | {"size": -1}]), r"layers\[0\].size"),
        (manifest(layers=[LAYER | {"size": True}]), r"layers\[0\].size"),
        (manifest(layers=[LAYER | {"size": 1.5}]), r"layers\[0\].size"),
        (manifest(layers=[LAYER | {"size": 1 << 41}]), r"layers\[0\].size"),
        (manifest(layers=[LAYER | {"digest": "sha256:../../etc"}]), r"layers\[0\].digest"),
        (manifest(layers=[LAYER | {"digest": None}]), r"layers\[0\].digest"),
        (manifest(config=CONFIG | {"size": 9 << 20}), "a config of"),
        (manifest(config=CONFIG | {"annotations": {"a": 1}}), "annotations"),
        (index(entry() | {"platform": 3}), "platform"),
        (index(entry() | {"platform": {"os": ["linux"]}}), "platform"),
    ],
)
def test_what_is_refused(data, words):
    with pytest.raises(Corrupt, match=words):
        parse(data)


def test_a_manifest_that_was_sent_as_something_else():
    with pytest.raises(Corrupt, match="was sent as"):
        parse(manifest(), OCI_INDEX)


@pytest.mark.parametrize(
    "data",
    [
        manifest(schemaVersion=1),
        manifest(config=CONFIG | {"mediaType": "application/vnd.cncf.helm.config.v1+json"}),
        manifest(layers=[LAYER | {"mediaType": "application/octet-stream"}]),
        manifest(layers=[LAYER | {"digest": "sha512:" + "ab" * 64}]),
    ],
)
def test_what_is_known_and_not_done(data):
    with pytest.raises(Unsupported):
        parse(data)


def choose(wanted, *entries, strict=True):
    chosen = select(parse(index(*entries)), Platform.parse(wanted), strict=strict)
    return chosen.platform and str(chosen.platform)


def test_platforms_are_chosen():
    every = [entry(f"linux/{name}") for name in ("386", "arm/v5", "arm/v7", "amd64", "arm64/v8", "s390x")]
    assert choose("linux/amd64", *every) == "linux/amd64"
    assert choose("linux/arm64", *every) == "linux/arm64"
    assert choose("linux/arm/v7", *every) == "linux/arm/v7"
    assert choose("linux/arm/v6", *every) == "linux/arm/v5"
    assert choose("linux/amd64/v3", *every) == "linux/amd64"
    assert choose("linux/arm64", entry("linux/arm/v7"), strict=False) == "linux/arm/v7"


def test_no_platform_in_dockers_words():
    with pytest.raises(NotFound) as caught:
        choose("linux/arm64", entry("linux/amd64"), entry("windows/arm64"))
    assert str(caught.value) == "no matching manifest for linux/arm64 in the manifest list entries"
    with pytest.raises(NotFound):
        choose("linux/arm64", entry("linux/arm/v7"))
    with pytest.raises(NotFound):
        choose("linux/amd64")


def test_attestations_are_not_images():
    about = entry("unknown/unknown", annotations={"vnd.docker.reference.type": "attestation-manifest"})
    with pytest.raises(NotFound):
        choose("linux/amd64", about)
    with pytest.raises(NotFound):
        choose("linux/amd64", entry(annotations={"vnd.docker.reference.type": "attestation-manifest"}))
    assert choose("linux/amd64", about, entry("linux/amd64")) == "linux/amd64"


def test_an_entry_without_a_platform_is_the_last_resort():
    assert choose("linux/amd64", entry(), entry("linux/amd64")) == "linux/amd64"
    assert choose("linux/amd64", entry("linux/arm64"), entry()) is None


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([DIGEST, OCI_MANIFEST, OCI_INDEX, 2]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["mediaType", "digest", "size", "platform", "os", "annotations", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {"schemaVersion": st.just(2) | values},
        optional={"manifests": values, "layers": values, "config": values, "mediaType": values},
    )
)
def test_any_json_is_read_or_refused(document):
    try:
        parsed = parse(json.dumps(document).encode())
    except KnarrError:
        return
    assert isinstance(parsed, (Manifest, Index))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    with pytest.raises(KnarrError):
        parse(data)
