"""Schemas on disk, so that a restarted worker can continue while the registry is unavailable."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from tablehouse.formats.schemas import Schema, SchemaName
from tablehouse.stores.data_directory import replace_file

log = structlog.get_logger(__name__)

_LAYOUT = 1


class Latest(msgspec.Struct, frozen=True):
    """The latest version of a subject, as of the time when `after` schemas had been fetched."""

    id: SchemaName
    after: int


class Saved(msgspec.Struct):
    """Schemas in the order in which they were fetched, and the latest ones by subject."""

    schemas: list[Schema] = []
    latest: dict[str, Latest] = {}


class _File(msgspec.Struct):
    layout: int
    urls: list[str]
    content: Saved


class Saving(Protocol):
    """Keeps schemas beyond the end of the process."""

    def load(self) -> Saved:
        """Return the saved schemas; blocks."""

    def save(self, content: Saved) -> None:
        """Replace the saved schemas; blocks. Raises OSError."""


class NothingSaved:
    """Saves nothing: for commands, which fetch the schemas they need each time."""

    def load(self) -> Saved:
        """See Saving."""
        return Saved()

    def save(self, content: Saved) -> None:
        """See Saving."""


class SavedSchemas:
    """A file of schemas of one registry. The same id means another schema in another registry.

    Two sets of URLs with a URL in common mean the same registry.
    """

    def __init__(self, path: Path, urls: Sequence[str]) -> None:
        self._path = path
        self._urls = list(urls)

    def load(self) -> Saved:
        """Return the saved schemas; none if the file cannot be used, since they can be fetched again."""
        try:
            file = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return Saved()
        except (OSError, ValueError, RecursionError) as error:
            log.warning("saved schemas cannot be read; they are fetched again", path=str(self._path), error=str(error))
            return Saved()
        if file.layout != _LAYOUT or not set(file.urls) & set(self._urls):
            log.warning("saved schemas are from another registry; they are fetched again", urls=file.urls)
            return Saved()
        return file.content

    def save(self, content: Saved) -> None:
        """Replace the file; blocks. A crash leaves either the old file or the new one. Raises OSError."""
        replace_file(self._path, msgspec.json.encode(_File(_LAYOUT, self._urls, content)), synced=True)
