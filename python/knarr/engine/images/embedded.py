"""The image inside the package: an OCI archive that answers to `hello` where nothing else has that name."""

from __future__ import annotations

import json
import os
import tarfile
from functools import cache

import knarr
from knarr.errors import Internal
from knarr.types import Reference

REFERENCE = Reference.parse("hello").with_default_tag()
ARCHIVE = os.path.join(os.path.dirname(knarr.__file__), "resources", "hello.tar")


@cache
def manifest_digest(path: str) -> str:
    """The digest by which the archive's image is recorded once it is loaded. Internal where the archive is damaged."""
    try:
        with tarfile.open(path) as archive:
            member = archive.extractfile("index.json")
            index = json.load(member) if member else {}
        return str(index["manifests"][0]["digest"])
    except (OSError, tarfile.TarError, KeyError, IndexError, ValueError) as error:
        raise Internal(f"{path} is damaged ({error!r}): install knarr again") from error
