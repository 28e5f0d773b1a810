"""Where the current catalog is found."""

from collections.abc import Callable
from dataclasses import dataclass

from tablehouse.catalog.spec import Catalog, TableSpec


@dataclass(frozen=True, slots=True)
class CatalogChange:
    """What a swap does, by name: tables that come, tables that go, and those that are defined differently now."""

    before: Catalog
    after: Catalog

    @property
    def added(self) -> dict[str, TableSpec]:
        """The tables that were not there before."""
        return {name: table for name, table in self.after.tables.items() if name not in self.before.tables}

    @property
    def removed(self) -> dict[str, TableSpec]:
        """The tables that are not there any more."""
        return {name: table for name, table in self.before.tables.items() if name not in self.after.tables}

    @property
    def changed(self) -> dict[str, TableSpec]:
        """The tables that are there before and after, with another definition, as they are now."""
        before, after = self.before.tables, self.after.tables
        return {name: table for name, table in after.items() if name in before and before[name] != table}


class CatalogView:
    """Holds the current catalog, a frozen snapshot; what takes it once keeps what it took.

    What is made of a catalog subscribes, and follows each swap. A subscriber gets the change before the next one is
    asked, in the order of their subscriptions; `current` is the new catalog by then. It may not raise, and not swap.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._current = catalog
        self._subscribers: list[Callable[[CatalogChange], None]] = []

    @property
    def current(self) -> Catalog:
        """The catalog of the latest swap."""
        return self._current

    def subscribe(self, follow: Callable[[CatalogChange], None]) -> None:
        """Call `follow` with every change from here on."""
        self._subscribers.append(follow)

    def swap(self, catalog: Catalog) -> None:
        """Make `catalog` the current one, and tell the subscribers; returns once all of them follow it."""
        change = CatalogChange(self._current, catalog)
        self._current = catalog
        for follow in self._subscribers:
            follow(change)
