"""What two workers must mean the same by, before one answers the other."""

from collections.abc import Mapping

from tablehouse.errors import NotOwner
from tablehouse.routing.cluster import ClusterView
from tablehouse.routing.tables import RoutedTable


class Agreement:
    """Compares what other workers mean by a table with what this one does."""

    def __init__(self, tables: Mapping[str, RoutedTable], view: ClusterView) -> None:
        self._tables = tables
        self._view = view

    def table(self, name: str, digest: str | None, partitions: int) -> RoutedTable:
        """Return a table of which another worker has the same digest and partition count; raises NotOwner."""
        table = self._tables.get(name)
        if table is None:
            raise NotOwner(f"this worker's catalog has no table {name!r}", table=name)
        if digest != table.digest:
            raise NotOwner(f"this worker has another definition of table {name}", table=name)
        known = self._view.current.partitions.get(table.spec.shard_name)
        if partitions != known:
            raise NotOwner(
                f"this worker routes by {known or 'no'} partitions of {table.spec.shard_name}, the asking one by "
                f"{partitions}",
                table=name,
            )
        return table

    def with_generations(self, error: NotOwner, theirs: object) -> NotOwner:
        """Return an error for another worker with the generation by which it asks, and that of this one."""
        generations = f"generation {self._view.current.generation} here, {theirs} there"
        return NotOwner(f"{error.detail} ({generations})", **error.details)
