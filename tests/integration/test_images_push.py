"""Pushes to a real registry on loopback: what arrives there, what is told, and what is refused."""

import base64
import json
import subprocess

import pytest

from knarr.credentials import ANONYMOUS, Credential
from knarr.errors import KnarrError, NotFound, Unauthorized, Unavailable, Unsupported
from knarr.types import Reference
from tests.conftest import running_registry
from tests.image_files import INDEX, MANIFEST, Layout, digest, files, pieces_of, simple, upload

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def load(place, archive):
    return place.run(place.images.load(pieces_of(archive)))


def push(place, reference, platform=None, auth=None):
    """The messages of a push, without those that only count."""
    messages = []

    async def emit(message):
        messages.append(message)

    place.run(place.images.push(Reference.parse(reference), platform, auth, emit))
    return [message for message in messages if message.get("status") != "Pushing"]


def at_registry(reference):
    """What the registry has: (raw manifest, its digest)."""
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{reference}"]
    raw = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
    return raw, digest(raw)


def told(messages, layer):
    return [message["status"] for message in messages if message.get("id") == layer[7:19]]


def test_what_arrives_is_what_came(place, registry):
    layout = Layout()
    entry = layout.image([files(a="1"), files(b="2")])
    name = f"{registry.host}/push/plain:1"
    (image,) = load(place, layout.name(entry, name).archive())
    messages = push(place, name)
    assert at_registry(name) == (layout.blobs[entry["digest"]], entry["digest"])
    assert messages[0] == {"status": f"The push refers to repository [{registry.host}/push/plain]"}
    for layer in image.layers:
        steps = told(messages, layer.blob)
        assert (steps[0], steps[-1]) == ("Preparing", "Pushed")
        assert set(steps) <= {"Preparing", "Waiting", "Pushed"}
    size = len(layout.blobs[entry["digest"]])
    assert messages[-2:] == [
        {"status": f"1: digest: {entry['digest']} size: {size}"},
        {"progressDetail": {}, "aux": {"Tag": "1", "Digest": entry["digest"], "Size": size}},
    ]
    assert place.images.list()[0].repo_digests == (f"{registry.host}/push/plain@{entry['digest']}",)
    (event,) = place.events.past(0, 1 << 63, lambda event: event["Action"] == "push")
    assert event["Actor"] == {"ID": name, "Attributes": {"name": f"{registry.host}/push/plain"}}
    place.reopen()
    assert place.images.list()[0].repo_digests == (f"{registry.host}/push/plain@{entry['digest']}",)


def test_what_is_there_is_not_sent_again(place, registry):
    layout = Layout()
    entry = layout.image([files(a="again")])
    layer = json.loads(layout.blobs[entry["digest"]])["layers"][0]["digest"]
    one, two = f"{registry.host}/push/one:1", f"{registry.host}/push/two:1"
    load(place, layout.name(entry, one).archive())
    assert told(push(place, one), layer)[-1] == "Pushed"
    assert told(push(place, one), layer)[-1] == "Layer already exists"
    place.run(place.images.tag(one, two))
    assert told(push(place, two), layer)[-1] == "Mounted from push/one"
    assert at_registry(two) == at_registry(one)


def test_every_tag(place, registry):
    layout = Layout()
    for number in range(3):
        layout.name(layout.image([files(a=f"tag {number}")]), f"{registry.host}/push/tags:{number}")
    load(place, layout.archive())
    messages = push(place, f"{registry.host}/push/tags")
    assert [message["aux"]["Tag"] for message in messages if "aux" in message] == ["0", "1", "2"]
    for number, entry in enumerate(layout.entries):
        assert at_registry(f"{registry.host}/push/tags:{number}")[1] == entry["digest"]


def test_dockers_own_manifest_stays_dockers(place, registry):
    layout = Layout()
    entry = layout.image([files(a="docker")])
    document = json.loads(layout.blobs[entry["digest"]])
    document["mediaType"] = DOCKER_MANIFEST
    document["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    document["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    own = layout.document(document, DOCKER_MANIFEST)
    name = f"{registry.host}/push/docker:1"
    load(place, layout.name(own, name).archive())
    push(place, name)
    assert at_registry(name)[1] == own["digest"]


def index_of(layout, *architectures, about=True):
    entries = []
    for architecture in architectures:
        entry = layout.image([files(a=architecture)], architecture=architecture)
        entries.append(entry)
        if about:
            statement = layout.add(b'{"predicate": 1}', "application/vnd.in-toto+json",
                                   annotations={"in-toto.io/predicate-type": "https://slsa.dev/provenance/v1"})  # fmt: skip
            config = layout.add(b"{}", "application/vnd.oci.image.config.v1+json")
            manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [statement],
                        "annotations": {"for": architecture}}  # fmt: skip
            annotations = {"vnd.docker.reference.type": "attestation-manifest",
                           "vnd.docker.reference.digest": entry["digest"]}  # fmt: skip
            entries.append(layout.document(manifest, MANIFEST, annotations=annotations,
                                           platform={"os": "unknown", "architecture": "unknown"}))  # fmt: skip
    return layout.index(*entries)


def test_an_index_goes_as_it_is_when_all_of_it_is_here(place, registry):
    layout = Layout()
    entry = index_of(layout, "amd64", "arm64")
    name = f"{registry.host}/push/index:1"
    load(place, layout.name(entry, name).archive())
    push(place, name)
    assert at_registry(name) == (layout.blobs[entry["digest"]], entry["digest"])
    assert [image.repo_digests for image in place.images.list()] == [(f"{registry.host}/push/index@{entry['digest']}",)]
    for listed in json.loads(layout.blobs[entry["digest"]])["manifests"]:
        assert at_registry(f"{registry.host}/push/index@{listed['digest']}")[1] == listed["digest"]


def test_of_an_index_that_is_not_all_here_the_one_manifest_goes(place, registry):
    layout = Layout()
    entry = index_of(layout, "amd64", "arm64")
    manifest, arm = (json.loads(layout.blobs[entry["digest"]])["manifests"][number] for number in (0, 2))
    source = upload(layout, registry.host, "push/whole", "1", entry)
    target = f"{registry.host}/push/part:1"
    place.run(place.images.pull(source, "linux/amd64"))
    place.run(place.images.tag(source, target))
    messages = push(place, target)
    assert at_registry(target)[1] == manifest["digest"]
    (note,) = [message["aux"] for message in messages if "manifestPushedInsteadOfIndex" in message.get("aux", {})]
    assert note["originalIndex"] == {"mediaType": INDEX, "digest": entry["digest"], "size": entry["size"]}
    assert note["selectedManifest"]["digest"] == manifest["digest"]
    place.run(place.images.pull(source, "linux/arm64"))
    push(place, target)
    assert at_registry(target)[1] == entry["digest"], "all of it has come by now"
    push(place, target, "linux/arm64")
    assert at_registry(target)[1] == arm["digest"]
    with pytest.raises(NotFound, match=r"does not provide the specified platform \(linux/s390x\)"):
        push(place, target, "linux/s390x")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("push/none:1", "tag does not exist: .*push/none:1"),
        ("push/none", "An image does not exist locally with the tag: .*push/none"),
        ("push/a@sha256:" + "0" * 64, "cannot push a digest reference"),
    ],
)
def test_what_is_not_here(place, registry, name, words):
    with pytest.raises(KnarrError, match=words):
        push(place, f"{registry.host}/{name}")


def test_nobody_answers(place):
    load(place, simple("127.0.0.1:1/a:1"))
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        push(place, "127.0.0.1:1/a:1")


@pytest.mark.parametrize(
    "kind", ["vnd.oci.image.layer.nondistributable.v1.tar+gzip", "vnd.docker.image.rootfs.foreign.diff.tar.gzip"]
)
def test_foreign_layers_are_refused(place, registry, kind):
    layout = Layout()
    document = json.loads(layout.blobs[layout.image([files(a="foreign")])["digest"]])
    document["layers"][0]["mediaType"] = f"application/{kind}"
    name = f"{registry.host}/push/foreign:1"
    load(place, layout.name(layout.document(document, MANIFEST), name).archive())
    with pytest.raises(Unsupported, match=r"layer sha256:\w+ is foreign"):
        push(place, name)


def test_a_missing_layer_is_named(place, registry):
    name = f"{registry.host}/push/missing:1"
    (image,) = load(place, simple(name, files(a="missing")))
    place.store.remove_blob(image.layers[0].blob)
    with pytest.raises(NotFound, match=f"content digest {image.layers[0].blob}: not found"):
        push(place, name)


def test_many_layers(place, registry):
    name = f"{registry.host}/push/many:1"
    layers = [files(**{f"f{number}": str(number)}) for number in range(500)]
    (image,) = load(place, simple(name, *layers))
    push(place, name)
    assert at_registry(name)[1] == image.manifest_digest
    assert len(json.loads(at_registry(name)[0])["layers"]) == 500


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A registry that asks for the user me with the password secret."""
    passwords = tmp_path_factory.mktemp("guarded") / "htpasswd"
    passwords.write_text(
        "me:$2b$04$w047bfBAdELXSi1D3/uKfetYeHXun6kgiSIXaJJEKpBI3gyuwRvMW\n"
    )  # secret, as bcrypt has it
    with running_registry(f"auth: {{htpasswd: {{realm: test, path: {passwords}}}}}\n") as running:
        yield running


def test_credentials(place, guarded, tmp_path):
    name = f"{guarded.host}/push/guarded:1"
    load(place, simple(name, files(a="guarded")))
    with pytest.raises(Unauthorized, match=r"push access denied.*no basic auth credentials"):
        push(place, name, None, ANONYMOUS)
    with pytest.raises(Unauthorized, match="refused the credentials") as caught:
        push(place, name, None, Credential("me", "wrong-one"))
    assert "wrong-one" not in str(caught.value)
    push(place, name, None, Credential("me", "secret"))
    configuration = tmp_path / "no-configuration"
    configuration.mkdir()
    secret = base64.b64encode(b"me:secret").decode()
    (configuration / "config.json").write_text(json.dumps({"auths": {guarded.host: {"auth": secret}}}))
    push(place, name)


def test_logins(place, guarded, registry):
    assert place.run(place.images.login(guarded.host, Credential("me", "secret"))) == ""
    assert place.run(place.images.login(registry.host, Credential("any", "body"))) == ""
    for wrong in (Credential("me", "no"), Credential("you", "secret"), ANONYMOUS):
        with pytest.raises(Unauthorized):
            place.run(place.images.login(guarded.host, wrong))
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        place.run(place.images.login("127.0.0.1:1", Credential("me", "secret")))


def test_what_a_name_means_at_its_registry(place, registry):
    layout = Layout()
    entry = index_of(layout, "amd64", "arm64", about=False)
    upload(layout, registry.host, "push/asked", "index", entry)
    plain = json.loads(layout.blobs[entry["digest"]])["manifests"][1]
    upload(layout, registry.host, "push/asked", "plain", plain)

    def ask(name):
        return place.run(place.images.distribution(f"{registry.host}/push/{name}", None))

    assert ask("asked:index") == {
        "Descriptor": {"mediaType": INDEX, "digest": entry["digest"], "size": entry["size"]},
        "Platforms": [{"architecture": name, "os": "linux"} for name in ("amd64", "arm64")],
    }
    assert ask(f"asked@{entry['digest']}") == ask("asked:index")
    assert ask("asked:plain")["Platforms"] == [{"architecture": "arm64", "os": "linux"}]
    with pytest.raises(NotFound, match="manifest unknown"):
        ask("asked:none")
