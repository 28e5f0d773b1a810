"""Holds the current catalog, and notifies subscribers of changes."""

from collections.abc import Callable
from dataclasses import dataclass

from tablehouse.catalog.spec import Catalog, TableSpec


@dataclass(frozen=True, slots=True)
class CatalogChange:
    """The changes of a swap, by table name: added, removed and redefined tables."""

    before: Catalog
    after: Catalog

    @property
    def added(self) -> dict[str, TableSpec]:
        """The tables that only the new catalog has."""
        return {name: table for name, table in self.after.tables.items() if name not in self.before.tables}

    @property
    def removed(self) -> dict[str, TableSpec]:
        """The tables that only the old catalog has."""
        return {name: table for name, table in self.before.tables.items() if name not in self.after.tables}

    @property
    def changed(self) -> dict[str, TableSpec]:
        """The new definitions of the tables whose definition differs between the catalogs."""
        before, after = self.before.tables, self.after.tables
        return {name: table for name, table in after.items() if name in before and before[name] != table}


class CatalogView:
    """Holds the current catalog, which is a frozen snapshot.

    Parts that keep anything derived from a catalog subscribe to swaps. Subscribers are called one after another, in the
    order of their subscriptions; `current` is already the new catalog. They must not raise or swap.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._current = catalog
        self._subscribers: list[Callable[[CatalogChange], None]] = []

    @property
    def current(self) -> Catalog:
        """The catalog of the latest swap."""
        return self._current

    def subscribe(self, follow: Callable[[CatalogChange], None]) -> None:
        """Call `follow` with every change from now on."""
        self._subscribers.append(follow)

    def swap(self, catalog: Catalog) -> None:
        """Make `catalog` the current one; return once all subscribers were called."""
        change = CatalogChange(self._current, catalog)
        self._current = catalog
        for follow in self._subscribers:
            follow(change)
