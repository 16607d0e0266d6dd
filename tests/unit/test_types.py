"""Names, digests and platforms: what they take, what they refuse, in whose words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knarr.errors import InvalidArgument, KnarrError, Unsupported
from knarr.types import ContainerName, Digest, Platform, Reference, VolumeName

HEX = "0123456789abcdef" * 4
SHA = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
        ("user/app:v1", "docker.io/user/app:v1", "user/app:v1"),
        ("a/b/c", "docker.io/a/b/c", "a/b/c"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app", "localhost:5000/app", "localhost:5000/app"),
        ("127.0.0.1:5000/app:x", "127.0.0.1:5000/app:x", "127.0.0.1:5000/app:x"),
        ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
        ("Upper/app", "Upper/app", "Upper/app"),
        ("quay.io/a/b__c.d-e/f", "quay.io/a/b__c.d-e/f", "quay.io/a/b__c.d-e/f"),
        (f"busybox@{SHA}", f"docker.io/library/busybox@{SHA}", f"busybox@{SHA}"),
        (f"q.io/b:1@{SHA}", f"q.io/b:1@{SHA}", f"q.io/b:1@{SHA}"),
        ("a:" + "t" * 128, "docker.io/library/a:" + "t" * 128, "a:" + "t" * 128),
    ],
)
def test_references(text, canonical, familiar):
    reference = Reference.parse(text)
    assert str(reference) == canonical
    assert reference.familiar == familiar
    assert Reference.parse(canonical) == reference
    assert Reference.parse(familiar) == reference


@pytest.mark.parametrize(
    "text",
    [
        "", ":tag", "busybox:", "busybox@", "a//b", "/a", "a/", "..", "../a", "a/../b", "a b", "a\0b", "a\n", "busybox\n",
        "a:tag\n", "-a", "a-", "a..b", "a.-b", "a___b", "a:" + "t" * 129, "a:.x", "a:-x", "a:b/c", "a@sha256:abc",
        f"a@{SHA}0x", "http://a/b", "a.b-/c", "é", "a/é", "host:port/a", "[::1/a", "a:b:c", f"a@{SHA}@{SHA}", "a" * 3000,
    ],
)  # fmt: skip
def test_what_is_no_reference(text):
    with pytest.raises(InvalidArgument, match=r"invalid (reference|digest) format"):
        Reference.parse(text)


def test_docker_words():
    with pytest.raises(InvalidArgument) as caught:
        Reference.parse("Foo")
    assert str(caught.value) == "invalid reference format: repository name (library/Foo) must be lowercase"
    with pytest.raises(InvalidArgument) as caught:
        Reference.parse(HEX)
    assert str(caught.value) == f"invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"
    with pytest.raises(InvalidArgument) as caught:
        Reference.parse("a" * 250)
    assert "must not be more than 255 characters" in str(caught.value)


def test_a_reference_cannot_be_changed_and_has_a_default_tag():
    reference = Reference.parse("busybox")
    with pytest.raises(AttributeError):
        reference.tag = "x"
    assert reference.with_default_tag().familiar == "busybox:latest"
    assert reference.with_tag("x").with_default_tag().tag == "x"
    with pytest.raises(InvalidArgument):
        reference.with_tag("a/b")
    assert len({reference, Reference.parse("docker.io/library/busybox")}) == 1


@given(st.text(max_size=120) | st.from_regex(r"[a-zA-Z0-9._/:@\-]{1,80}", fullmatch=True))
def test_whatever_parses_is_safe_and_stable(text):
    try:
        reference = Reference.parse(text)
    except KnarrError:
        return
    assert ".." not in reference.repository.split("/")
    assert str(reference).isascii()
    assert str(reference).isprintable()
    assert " " not in str(reference)
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference


def test_digests():
    assert Digest(SHA).hex == HEX
    assert Digest(SHA).short == HEX[:12]
    assert Digest(SHA) == SHA
    for text in ["", HEX, "sha256:", SHA.upper(), SHA + "0", SHA + "\n", "sha256:" + "g" * 64, "sha256:../" + HEX[3:]]:
        with pytest.raises((InvalidArgument, Unsupported)):
            Digest(text)
    with pytest.raises(Unsupported):
        Digest("sha512:" + HEX * 2)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"), ("linux/x86_64", "linux/amd64"), ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"), ("linux/arm64/v8", "linux/arm64"), ("linux/aarch64", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"), ("linux/arm/7", "linux/arm/v7"), ("linux/armel", "linux/arm/v6"),
        ("Linux/ARM64", "linux/arm64"), ("arm64", "linux/arm64"), ("linux/i386", "linux/386"),
    ],
)  # fmt: skip
def test_platforms(text, normal):
    assert str(Platform.parse(text)) == normal


@pytest.mark.parametrize("text", ["", "/", "linux/", "linux/arm64/v8/x", "linux/../x", "linux/a b", "linux\0/amd64"])
def test_what_is_no_platform(text):
    with pytest.raises(InvalidArgument, match="invalid platform"):
        Platform.parse(text)


def test_what_a_platform_runs():
    def runs(text, strict):
        return [str(platform) for platform in Platform.parse(text).candidates(strict=strict)]

    assert runs("linux/amd64", strict=False) == ["linux/amd64", "linux/386"]
    assert runs("linux/amd64/v3", strict=True) == ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"]
    assert runs("linux/arm64", strict=True) == ["linux/arm64"]
    assert runs("linux/arm64", strict=False)[1:3] == ["linux/arm/v8", "linux/arm/v7"]
    assert runs("linux/arm/v6", strict=True) == ["linux/arm/v6", "linux/arm/v5"]


@pytest.mark.parametrize("kind", [ContainerName, VolumeName])
def test_names(kind):
    assert kind("web-1_x.y") == "web-1_x.y"
    for text in ["", "a", ".", "..", "a/b", "a/../b", "-a", "a b", "a\0b", "ab\n", "é1", "a" * 256]:
        with pytest.raises(InvalidArgument, match=r"only|too short"):
            kind(text)


def test_a_container_name_loses_one_slash():
    assert ContainerName("/web") == "web"
    with pytest.raises(InvalidArgument):
        ContainerName("//web")
