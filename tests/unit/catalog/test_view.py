from dataclasses import replace

from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.catalog.view import CatalogChange, CatalogView
from tablehouse.formats.schemas import NoSchemas
from tablehouse.formats.variants import Known
from tablehouse.routing.tables import current_tables

SOURCE = SourceSpec("t", KeySpec("string"), ValueSpec("json"))
KEPT, GONE = TableSpec("kept", SOURCE), TableSpec("gone", SOURCE)
NEW, OLD_VERSION, NEW_VERSION = TableSpec("new", SOURCE), TableSpec("v", SOURCE), TableSpec("v", SOURCE, version=2)

BEFORE = Catalog({"kept": KEPT, "gone": GONE, "v": OLD_VERSION})
AFTER = Catalog({"new": NEW, "kept": KEPT, "v": NEW_VERSION})


def test_a_swap_tells_each_subscriber_what_comes_goes_and_changes_once_the_new_catalog_is_current() -> None:
    view = CatalogView(BEFORE)
    told: list[tuple[str, CatalogChange, Catalog]] = []
    for name in ("first", "second"):
        view.subscribe(lambda change, name=name: told.append((name, change, view.current)))  # type: ignore[misc]
    before = view.current
    view.swap(AFTER)
    assert [(name, current) for name, _, current in told] == [("first", AFTER), ("second", AFTER)]
    change = told[0][1]
    assert (change.added, change.removed, change.changed) == ({"new": NEW}, {"gone": GONE}, {"v": NEW_VERSION})
    assert before is BEFORE


def test_routed_tables_follow_the_catalog_and_those_that_do_not_change_stay_the_same() -> None:
    view = CatalogView(BEFORE)
    tables = current_tables(view, "g", Known(NoSchemas()))
    kept, changed = tables["kept"], tables["v"]
    view.swap(AFTER)
    assert list(tables) == ["new", "kept", "v"]
    assert tables["kept"] is kept
    assert tables["v"].digest != changed.digest
    view.swap(BEFORE)
    assert list(tables) == ["kept", "gone", "v"]
    assert tables["v"].digest == changed.digest


def test_a_table_whose_columns_are_in_another_order_is_routed_anew() -> None:
    one = replace(KEPT, columns={"a": "x", "b": "y"})
    view = CatalogView(Catalog({"kept": one}))
    tables = current_tables(view, "g", Known(NoSchemas()))
    before = tables["kept"].digest
    view.swap(Catalog({"kept": replace(KEPT, columns={"b": "y", "a": "x"})}))
    assert tables["kept"].digest != before
