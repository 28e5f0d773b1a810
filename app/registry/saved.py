"""Schemas on disk, so that a restarted worker goes on while the registry is away."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from app.formats.schemas import Schema
from app.stores.data_directory import replace_file

log = structlog.get_logger(__name__)

_LAYOUT = 1


class _Saved(msgspec.Struct):
    layout: int
    urls: list[str]
    schemas: list[Schema]


class SavedSchemas:
    """A file of schemas of one registry. An id means something else in another registry.

    Two sets of URLs that have one in common name the same registry.
    """

    def __init__(self, path: Path, urls: Sequence[str]) -> None:
        self._path = path
        self._urls = list(urls)

    def load(self) -> list[Schema]:
        """Return what was saved; nothing when it cannot be used, since it can be fetched again."""
        try:
            saved = msgspec.json.decode(self._path.read_bytes(), type=_Saved)
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.warning("saved schemas cannot be read; they are fetched again", path=str(self._path), error=str(error))
            return []
        if saved.layout != _LAYOUT or not set(saved.urls) & set(self._urls):
            log.warning("saved schemas are of another registry; they are fetched again", urls=saved.urls)
            return []
        return saved.schemas

    def save(self, schemas: Sequence[Schema]) -> None:
        """Replace the file; blocks. A crash leaves the file from before or this one. Raises OSError."""
        replace_file(self._path, msgspec.json.encode(_Saved(_LAYOUT, self._urls, list(schemas))), synced=True)
