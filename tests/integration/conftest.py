"""Fixtures of the tests between the engine's parts."""

import pytest

from tests.integration.images_place import Place


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The engine's images on roots of their own, with nobody's docker configuration."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-configuration"))
    with Place(tmp_path) as place:
        yield place
