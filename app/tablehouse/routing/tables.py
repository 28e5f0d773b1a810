"""A table as the router needs it: its key format, its partitioner, and what peers must agree on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tablehouse.catalog.fingerprint import definition, digest
from tablehouse.catalog.spec import Catalog, TableSpec
from tablehouse.catalog.view import CatalogChange, CatalogView
from tablehouse.errors import InvalidKey, KeySchemaUnknown, PartitionUnassigned, TableNotFound, UriTooLong
from tablehouse.formats.avro_rows import AVRO, AvroRows, avro_rows
from tablehouse.formats.encoding import Encoder, encoder
from tablehouse.formats.keyed import source_keys
from tablehouse.formats.keys import Key, KeyFormat
from tablehouse.formats.partitioners import partition_of
from tablehouse.formats.values import value_format
from tablehouse.formats.variants import Known
from tablehouse.routing.cluster import ClusterSnapshot

#: Longer keys are refused before anything looks at them, counted after percent-decoding.
MAX_KEY_BYTES = 8 * 1024


_TAG = re.compile(r'"([0-9a-f]{8})-([0-9]{1,9})-([0-9]{1,18})(?:-avro-(?:[0-9]{1,10}|file))?(?:-gzip)?"')


@dataclass(frozen=True, slots=True)
class RoutedTable:
    """One table of the catalog, ready to route.

    digest is over the definition, the version and the group. Workers forward reads of a table to each other only when
    their digests are equal, since otherwise they would read a key, or answer with a value, of another definition, or
    mistake a worker of another group, on a reused address, for the owner.
    """

    spec: TableSpec
    keys: KeyFormat
    content_type: str
    digest: str
    #: How rows become Avro, for callers that ask for it; None where they cannot.
    avro: AvroRows | None = None
    #: How rows of callers become records; None where callers may not write.
    encoder: Encoder | None = None

    @property
    def content_types(self) -> tuple[str, ...]:
        """Every media type that a single row can be had in, the usual one first."""
        return (self.content_type,) if self.avro is None else (self.content_type, AVRO)

    @property
    def has_keys_once(self) -> bool:
        """Whether a key can have a row in one partition only, since it has one form and that decides the partition."""
        return self.keys.canonical_wire and self.spec.source.partitioner != "any"

    def parse(self, key_text: bytes) -> Key:
        """Parse percent-decoded key text; raises InvalidKey and UriTooLong."""
        if len(key_text) > MAX_KEY_BYTES:
            raise UriTooLong(
                f"the key has {len(key_text)} bytes, at most {MAX_KEY_BYTES} are allowed",
                table=self.spec.name,
            )
        try:
            return self.keys.parse(key_text)
        except (InvalidKey, KeySchemaUnknown) as error:
            raise type(error)(error.detail, **{"table": self.spec.name, **error.details}) from None

    def entity_tag(self, partition: int, offset: int) -> str:
        """Make the strong validator of a row: no two of its states share definition, partition and source offset.

        The offset is that of the row's own record in the row's own input, not a position of the task.
        """
        return f'"{self.digest[:8]}-{partition}-{offset}"'

    def offset_of(self, partition: int, tag: str) -> int | None:
        """Return the source offset of the row that has an entity tag; None when no row of a partition has it.

        What may follow the offset tells in which form the row was given.
        """
        match = _TAG.fullmatch(tag)
        known = match is not None and (match[1], int(match[2])) == (self.digest[:8], partition)
        return int(match[3]) if match is not None and known else None

    def partitions_of(self, key: Key, count: int) -> tuple[int, ...]:
        """Name each partition that is known to be able to hold the key, once.

        That of the canonical wire form comes first, where the partitioner says where it is.
        """
        partitioner = self.spec.source.partitioner
        if partitioner == "any":
            return tuple(range(count))
        if len(key.wires) == 1:
            return (partition_of(partitioner, key.wires[0], count),)
        return tuple(dict.fromkeys(partition_of(partitioner, wire, count) for wire in key.wires))

    def other_partitions(self, key: Key, partitions: tuple[int, ...], count: int) -> tuple[int, ...]:
        """Name the partitions besides those that a key may lie in as well: all, where producers may use other forms."""
        if key.enumerable:
            return ()
        return tuple(other for other in range(count) if other not in partitions)


def routed_tables(catalog: Catalog, group: str, known: Known) -> dict[str, RoutedTable]:
    """Make every table of a catalog ready to route, by name and in the catalog's order.

    group is the workers' consumer group, known what this worker knows of schemas and keys.
    """
    return {name: _routed(spec, group, known) for name, spec in catalog.tables.items()}


def current_tables(view: CatalogView, group: str, known: Known) -> Mapping[str, RoutedTable]:
    """Return the routed tables of the view's current catalog, one mapping that follows every swap.

    A table that a swap does not concern stays the one it is. Code must not await while it iterates over the mapping.
    """
    tables = routed_tables(view.current, group, known)

    def follow(change: CatalogChange) -> None:
        kept = {name: table for name, table in tables.items() if _is_same(table.spec, change.after.tables.get(name))}
        tables.clear()
        for name, spec in change.after.tables.items():
            tables[name] = kept.get(name) or _routed(spec, group, known)

    view.subscribe(follow)
    return tables


def _is_same(before: TableSpec, after: TableSpec | None) -> bool:
    # Two mappings of the same columns in another order are equal, and make other rows.
    return after is not None and before == after and definition(before) == definition(after)


def _routed(spec: TableSpec, group: str, known: Known) -> RoutedTable:
    return RoutedTable(
        spec=spec,
        keys=source_keys(spec.source, known),
        content_type=value_format(spec, known.schemas).content_type,
        digest=digest(definition(spec) | {"version": str(spec.version), "group": group}),
        avro=avro_rows(spec, known.schemas),
        encoder=encoder(spec, known) if spec.writable else None,
    )


def table_named(tables: Mapping[str, RoutedTable], name: str) -> RoutedTable:
    """Find a table; raises TableNotFound."""
    table = tables.get(name)
    if table is None:
        raise TableNotFound(f"there is no table {name!r}: GET /tables lists those there are", table=name)
    return table


def partition_count(routed: RoutedTable, snapshot: ClusterSnapshot) -> int:
    """Return the count to hash keys with; raises PartitionUnassigned before the first assignment."""
    count = snapshot.partitions.get(routed.spec.shard_name)
    if not count:
        raise PartitionUnassigned(
            f"no assignment of topic {', '.join(routed.spec.topics)} has reached this worker yet",
            table=routed.spec.name,
            generation=snapshot.generation,
            tried=[],
        )
    return count
