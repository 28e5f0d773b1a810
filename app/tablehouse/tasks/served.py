"""The tables of the catalog that a worker serves."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tablehouse.catalog.fingerprint import definition
from tablehouse.catalog.spec import Catalog, TableSpec


@dataclass(frozen=True, slots=True)
class Served:
    """The tables that a worker has tasks for, and the partition counts of their shards by name."""

    catalog: Catalog
    partitions: Mapping[str, int]


def goes_on(before: TableSpec, after: TableSpec) -> bool:
    """Return whether a table's task can keep running with another definition of the table.

    It can if the definitions differ only in fields that no task uses.
    """
    alike = replace(before, description=after.description, standbys=after.standbys, writable=after.writable)
    # The order of columns counts, and only the parts of the definition show it.
    return alike == after and definition(before) == definition(after)
