"""Conditions on tables whose keys can have rows in several partitions, of which the newest counts."""

from msgspec.structs import replace

from tablehouse.formats.row_form import row_form
from tablehouse.routing.tables import RoutedTable
from tablehouse.tasks.filters import RowMatches, condition, row_filter
from tablehouse.tasks.projection import projection
from tablehouse.tasks.ranges import KeyedRow, Range


class NewestFilter:
    """Does to the newest rows of a range what partitions do to theirs: `where`, `fields` and `keys_only`.

    Raises InvalidExpression.
    """

    def __init__(self, routed: RoutedTable, bounds: Range) -> None:
        text = bounds.where or ""
        self._routed = routed
        self._text = text
        self._form = row_form(routed.keys, routed.spec.source.key, routed.content_type)
        self._project = projection(bounds.fields) if bounds.fields else None
        self._keys_only = bounds.keys_only
        self._filters: dict[int, RowMatches] = {}
        keys_only = bounds.keys_only and condition(text).members is None
        #: What partitions are asked for.
        self.question = replace(bounds, where=None, fields=(), keys_only=keys_only)

    def match(self, row: KeyedRow, partition: int) -> KeyedRow | None:
        """Return what is to be given of a row of a partition; None if it does not match. Raises ExpressionFailed."""
        matches = self._filters.get(partition)
        if matches is None:
            matches = row_filter(self._text, self._form, self._routed.spec.name, partition)
            self._filters[partition] = matches
        if not matches(row.stored_key, row.payload, row.timestamp_ms):
            return None
        if self._keys_only:
            return row._replace(payload=b"")
        return row if self._project is None else row._replace(payload=self._project(row.payload))
