"""The cursors of scans: after which key a page goes on, and of which range.

A cursor is base64url of a version, a tag of the table's definition, a tag of the range, the stored key that the page
before has reached, and a checksum over all of it. Workers keep nothing of it. It is not a secret: a made-up cursor can
only begin a scan at another key.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b

import msgspec

from tablehouse.errors import InvalidCursor
from tablehouse.routing.tables import RoutedTable
from tablehouse.tasks.ranges import Range

VERSION = b"\x01"

_TAG = 8


def cursor(table: RoutedTable, bounds: Range, reached: bytes) -> str:
    """Return the cursor with which a scan of a range goes on after a stored key."""
    content = VERSION + _table_tag(table) + _range_tag(bounds) + reached
    return urlsafe_b64encode(content + _digest(content)).rstrip(b"=").decode()


def after_cursor(table: RoutedTable, bounds: Range, text: bytes) -> Range:
    """Return the part of a range that follows a cursor; raises InvalidCursor."""
    content = _content(text)
    if content is None:
        raise _invalid(table, "the cursor is damaged: use it exactly as `next` of a page has it")
    if content[:1] != VERSION:
        raise _invalid(table, "the cursor is of another version of Tablehouse: begin the scan again, without a cursor")
    if content[1 : 1 + _TAG] != _table_tag(table):
        raise _invalid(
            table,
            "the cursor is of another table, or of another definition of this one: begin the scan again, without it",
        )
    reached = content[1 + 2 * _TAG :]
    is_within = bounds.start <= reached and (bounds.end is None or reached < bounds.end)
    if content[1 + _TAG : 1 + 2 * _TAG] != _range_tag(bounds) or not is_within:
        raise _invalid(
            table,
            "the cursor is of another range: prefix, from, to, reverse and where have to be those of the page that it "
            "is of",
        )
    return bounds.after(reached, bounds.limit)


def _content(text: bytes) -> bytes | None:
    """Return what a cursor says, None for a text that is none."""
    try:
        data = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except ValueError:
        return None
    content, digest = data[:-_TAG], data[-_TAG:]
    is_whole = len(content) >= 1 + 2 * _TAG and digest == _digest(content)
    # A decoder passes over characters that no cursor has.
    return content if is_whole and urlsafe_b64encode(data).rstrip(b"=") == text else None


def _table_tag(table: RoutedTable) -> bytes:
    return _digest(msgspec.msgpack.encode((table.spec.name, table.digest)))


def _range_tag(bounds: Range) -> bytes:
    # A range without a condition has the tag that it had when there were none.
    conditions = () if bounds.where is None else (bounds.where,)
    return _digest(msgspec.msgpack.encode((bounds.start, bounds.end, bounds.reverse, *conditions)))


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=_TAG, person=b"scan cursor").digest()


def _invalid(table: RoutedTable, why: str) -> InvalidCursor:
    return InvalidCursor(why, parameter="cursor", table=table.spec.name)
