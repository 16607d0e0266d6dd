"""Names and digests, parsed once into types that cannot hold what they must not.

Nothing here can contain "..", a NUL or a path separator where the grammar has none, so whoever
holds one of these values may build a path or a URL from it. A leaf: the standard library only, and
little of that, as the command line imports it.

Sources: the grammar of references is that of the distribution project (docker.io defaults and
familiar names included); digests and platforms are those of the OCI image specification; the
names of containers and volumes are those that Docker takes.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from knarr.errors import InvalidArgument, Unsupported

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ContainerName", "Digest", "Platform", "Reference", "VolumeName"]

DEFAULT_DOMAIN = "docker.io"
LEGACY_DOMAIN = "index.docker.io"
OFFICIAL = "library"
DEFAULT_TAG = "latest"
MAX_REPOSITORY = 255  # characters of domain and path together, the distribution project's limit
MAX_REFERENCE = 2048  # no name, tag and digest together can be longer; refused before any pattern runs

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_DOMAIN = re.compile(rf"{_HOST}(?::[0-9]+)?")
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_PLATFORM_PART = re.compile(r"(?=.{1,64}$)[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")


class Digest(str):
    """A SHA-256 digest, "sha256:<64 lower-case hex digits>". InvalidArgument, or Unsupported for other algorithms."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if not _SHA256.fullmatch(text):
            shown = _shown(text)
            if _DIGEST.fullmatch(text) and not text.startswith("sha256:"):
                raise Unsupported(f"unsupported digest algorithm in {shown}: knarr knows sha256")
            raise InvalidArgument(f"invalid digest format: {shown} is not sha256: and 64 lower-case hex digits")
        return super().__new__(cls, text)

    @property
    def hex(self) -> str:
        return self[7:]

    @property
    def short(self) -> str:
        """The first 12 hex digits, as Docker shows identities."""
        return self[7:19]


class Reference:
    """The name of an image in full: domain, path, and a tag or a digest or both or neither.

    `str()` is the canonical form ("docker.io/library/busybox:latest"), `familiar` Docker's short one
    ("busybox:latest"). Immutable and hashable. Build one with `parse`.
    """

    __slots__ = ("digest", "domain", "path", "tag")

    domain: str
    path: str
    tag: str
    digest: Digest | None

    def __init__(self, domain: str, path: str, tag: str = "", digest: Digest | None = None) -> None:
        if not _DOMAIN.fullmatch(domain) or not _PATH.fullmatch(path) or (tag and not _TAG.fullmatch(tag)):
            raise InvalidArgument("invalid reference format")
        if len(domain) + 1 + len(path) > MAX_REPOSITORY:
            raise InvalidArgument(
                f"invalid reference format: repository name must not be more than {MAX_REPOSITORY} characters"
            )
        for name, value in (("domain", domain), ("path", path), ("tag", tag), ("digest", digest)):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a reference is immutable: {name}")

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse a name as people write it. InvalidArgument with Docker's words."""
        if len(text) > MAX_REFERENCE:
            raise InvalidArgument(f"invalid reference format: {len(text)} characters are too many")
        if _HEX64.fullmatch(text):
            raise InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
        name, at, digest = text.partition("@")
        domain, remainder = _split_domain(name)
        path, colon, tag = remainder.partition(":")
        if path != path.lower() and path.isprintable():
            raise InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase")
        if (colon and not tag) or (at and not _DIGEST.fullmatch(digest)):
            raise InvalidArgument("invalid reference format")
        return cls(domain, path, tag, Digest(digest) if at else None)

    @property
    def repository(self) -> str:
        """Domain and path, without tag or digest."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The repository as Docker shows it: "busybox", "user/app", "quay.io/a/b"."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        head, slash, rest = self.path.partition("/")
        return rest if slash and head == OFFICIAL and "/" not in rest else self.path

    @property
    def familiar(self) -> str:
        return self.familiar_name + self._suffix()

    def with_default_tag(self) -> Reference:
        """Itself, with the tag "latest" where neither tag nor digest was given."""
        return self if self.tag or self.digest else Reference(self.domain, self.path, DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        """The same repository under another tag. InvalidArgument for what cannot be a tag."""
        if not _TAG.fullmatch(tag):
            raise InvalidArgument(f"invalid tag format: {_shown(tag)}")
        return Reference(self.domain, self.path, tag)

    def with_digest(self, digest: Digest) -> Reference:
        """The same repository at a digest, without a tag."""
        return Reference(self.domain, self.path, "", digest)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.repository + self._suffix()

    def __repr__(self) -> str:
        return f"Reference({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reference) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def _split_domain(name: str) -> tuple[str, str]:
    """Tell a registry's host from the first component of a path, as Docker does."""
    head, slash, rest = name.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, f"{OFFICIAL}/{name}"
    if head == LEGACY_DOMAIN:
        head = DEFAULT_DOMAIN
    elif not (head == "localhost" or "." in head or ":" in head or head != head.lower()):
        return DEFAULT_DOMAIN, name
    if head == DEFAULT_DOMAIN and "/" not in rest:
        rest = f"{OFFICIAL}/{rest}"
    return head, rest


def _shown(text: str) -> str:
    """Text from outside, for a message: short and without control characters."""
    return ascii(text if len(text) <= 100 else text[:97] + "...")


_ARCHITECTURES = {
    "x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64",
    "i386": "386", "i486": "386", "i586": "386", "i686": "386",
    "armhf": "arm", "armv7l": "arm", "armel": "arm", "armv6l": "arm",
}  # fmt: skip
_IMPLIED_VARIANT = {"armhf": "v7", "armv7l": "v7", "armel": "v6", "armv6l": "v6"}
_OLDER_ARM = ["v8", "v7", "v6", "v5"]


class Platform(NamedTuple):
    """An operating system and an architecture in normal form: "linux/amd64", "linux/arm/v7".

    arm64/v8 and amd64/v1 are what these architectures mean anyway: their variant is "".
    """

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def of(cls, system: str, architecture: str, variant: str = "") -> Platform:
        """Normalise what a manifest, a config or a machine calls it."""
        lowered = architecture.lower()
        known = _ARCHITECTURES.get(lowered, lowered)
        variant = variant.lower() or _IMPLIED_VARIANT.get(lowered, "")
        if variant.isdecimal():
            variant = f"v{variant}"
        if known == "arm" and not variant:
            variant = "v7"
        elif (known, variant) in {("arm64", "v8"), ("amd64", "v1")}:
            variant = ""
        return cls("darwin" if system.lower() == "macos" else system.lower(), known, variant)

    @classmethod
    def host(cls) -> Platform:
        return cls.of("linux", os.uname().machine)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Parse "os", "arch", "os/arch" or "os/arch/variant". InvalidArgument."""
        parts = text.split("/")
        if not 1 <= len(parts) <= 3 or not all(_PLATFORM_PART.fullmatch(part) for part in parts):
            raise InvalidArgument(f"{_shown(text)} is an invalid platform: write os/architecture, as in linux/arm64")
        if len(parts) == 1:
            host = cls.host()
            word = parts[0].lower()
            return cls(word, host.architecture, host.variant) if word in _SYSTEMS else cls.of("linux", word)
        return cls.of(*parts)

    def candidates(self, *, strict: bool) -> list[Platform]:
        """What this platform runs, best first: itself and older variants; unless strict, related architectures too."""
        found = [self]
        number = self.variant[1:]
        if self.architecture in {"amd64", "arm64"} and number.isdecimal():
            base = 1 if self.architecture == "amd64" else 8
            found += [
                Platform.of(self.os, self.architecture, f"v{older}")
                for older in range(min(int(number), 64) - 1, base - 1, -1)
            ]
        if self.architecture == "arm" and self.variant in _OLDER_ARM:
            older_arm = _OLDER_ARM[_OLDER_ARM.index(self.variant) + 1 :]
            found += [Platform(self.os, "arm", variant) for variant in older_arm]
        if not strict and self.architecture == "arm64":
            found += [Platform(self.os, "arm", variant) for variant in _OLDER_ARM]
        if not strict and self.architecture == "amd64":
            found.append(Platform(self.os, "386"))
        return found

    def __str__(self) -> str:
        return "/".join(filter(None, self))


_SYSTEMS = {"linux", "windows", "darwin", "macos", "freebsd", "netbsd", "openbsd", "solaris", "illumos", "android"}


class ContainerName(str):
    """A container's name, [a-zA-Z0-9][a-zA-Z0-9_.-]+ ; one leading slash is dropped, as Docker does."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        bare = text.removeprefix("/")
        if len(bare) > 255 or not _NAME.fullmatch(bare):
            raise InvalidArgument(
                f"Invalid container name ({_printable(text)}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )
        return super().__new__(cls, bare)


class VolumeName(str):
    """A named volume's name, with the same letters as a container's."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if len(text) == 1:
            raise InvalidArgument("volume name is too short, names should be at least two alphanumeric characters")
        if len(text) > 255 or not _NAME.fullmatch(text):
            raise InvalidArgument(
                f'"{_printable(text)}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )
        return super().__new__(cls, text)


def _printable(text: str) -> str:
    return _shown(text)[1:-1]
