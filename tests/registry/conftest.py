"""A real schema registry, and an engine whose values need it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tablehouse.testing.schema_registry import EmbeddedRegistry


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRegistry]:
    """One registry for the whole session: use subjects of your own, and leave it running."""
    with EmbeddedRegistry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def own_registry(tmp_path: Path) -> Iterator[EmbeddedRegistry]:
    """Make a registry that may be killed; it is not started yet."""
    registry = EmbeddedRegistry(tmp_path / "registry")
    yield registry
    registry.stop()
