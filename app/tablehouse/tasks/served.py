"""What of the catalog a worker serves."""

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
    """Return whether a task of a table is good for another definition of it as it is.

    It is where they differ only in what no task looks at.
    """
    alike = replace(before, description=after.description, standbys=after.standbys, writable=after.writable)
    # The order of columns counts, which only the parts of the definition tell.
    return alike == after and definition(before) == definition(after)
