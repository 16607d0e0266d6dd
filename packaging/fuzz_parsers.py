"""Coverage-guided fuzzing of the parsers in Python (atheris): references, manifests and indexes, image configs.

`python packaging/fuzz_parsers.py reference|manifest|config [libFuzzer's options]`. Whatever the bytes, a parser
gives a value or one of `knarr.errors`; a parsed reference is parsed again to the same one. Anything else is a finding.
"""

import sys

import atheris

with atheris.instrument_imports(include=["knarr.types", "knarr.engine.images"]):
    from knarr.engine.images.config import read_config
    from knarr.engine.images.manifest import parse as parse_manifest
    from knarr.errors import KnarrError
    from knarr.types import Reference


def reference(data: bytes) -> None:
    """A reference that was taken is what it says it is."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        taken = Reference.parse(text)
    except KnarrError:
        return
    if Reference.parse(str(taken)) != taken:
        raise AssertionError(f"{text!r} is {taken} once, and another the second time")
    if ".." in str(taken).split("/") or "\0" in str(taken):
        raise AssertionError(f"{text!r} was taken as {taken}")


def manifest(data: bytes) -> None:
    """A manifest or an index, or an error of ours."""
    try:
        parse_manifest(data)
    except KnarrError:
        return


def config(data: bytes) -> None:
    """An image's config, or an error of ours."""
    try:
        read_config(data, None, "the config")
    except KnarrError:
        return


TARGETS = {"reference": reference, "manifest": manifest, "config": config}


def main() -> None:
    """Fuzz one target; the rest of the command line is libFuzzer's."""
    name, *options = sys.argv[1:] or [""]
    if name not in TARGETS:
        raise SystemExit(f"say which: {', '.join(TARGETS)}")
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
