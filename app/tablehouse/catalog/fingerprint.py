"""Fingerprints of tables: stored rows are only valid for a table if no part of its fingerprint has changed.

The description, the number of standbys, the handling of bad records and whether callers may write are not included,
since they change no row. Group, table and version are separate parts, because the name of a changelog does not
distinguish them: table `eu-users` of group `shop` and table `users` of group `shop-eu` have the same one.
"""

import hashlib
from collections.abc import Mapping

import msgspec

from tablehouse.catalog.spec import DEFAULT_SPELLINGS, Catalog, SchemaFile, TableSpec

#: Bytes of SHA-256 in a digest, shown as twice as many hexadecimal digits.
DIGEST_BYTES = 16

#: Bytes of a table's digest in the metadata that each worker sends when it joins its group.
SHORT_DIGEST_BYTES = 6


def definition(table: TableSpec) -> dict[str, str]:
    """Return the parts of a fingerprint that come from the definition alone, in a fixed order."""
    source = table.source
    parts = {
        "source": source.topic,
        "key": source.key.format,
        "key_fields": _json(source.key.fields),
        "value": source.value.format,
        "partitioner": source.partitioner,
        "envelope": source.envelope,
        # A list of pairs, because the order of columns is the order of members in the stored bytes.
        "columns": _json(None if table.columns is None else list(table.columns.items())),
        "fold": table.fold.name,
    }
    if source.key.spellings != DEFAULT_SPELLINGS:
        parts["key_spellings"] = _json(source.key.spellings)
    if source.key.bare:
        parts["key_bare"] = "true"
    if source.value.format == "avro":
        parts |= {"value_framing": source.value.framing, "value_schema": _schema(source.value.schema)}
    if source.value.subject is not None:
        parts["value_subject"] = source.value.subject
    return parts


def fingerprint(table: TableSpec, *, group: str, partitions: int, row_layout: int) -> dict[str, str]:
    """Return the named parts, which are kept in the store and in every claim.

    `group` is the workers' consumer group, `partitions` the partition count of the source topic, and `row_layout` the
    version of the row bytes.
    """
    owner = {"group": group, "table": table.name, "version": str(table.version)}
    return owner | definition(table) | {"partitions": str(partitions), "row_layout": str(row_layout)}


def difference(stored: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return one sentence for each part that changed, with both values; empty if none did.

    A part that only one side has (written by another release) counts as changed.
    """
    return [
        f"{name} was {stored.get(name, '(not recorded)')} and is now {now.get(name, '(not recorded)')}"
        for name in dict.fromkeys((*now, *stored))
        if stored.get(name) != now.get(name)
    ]


def digest(parts: Mapping[str, str]) -> str:
    """Return 32 hexadecimal digits, which are equal if and only if all parts are, in any order."""
    return hashlib.sha256(_json(dict(sorted(parts.items()))).encode()).digest()[:DIGEST_BYTES].hex()


def catalog_digest(catalog: Catalog) -> str:
    """Return 32 hexadecimal digits over every table's definition and version.

    Every worker sends it when it joins the group (MemberMetadata). No decision depends on it: whether two workers may
    forward to each other depends on the digest of the requested table. The order of the tables in the file, their
    descriptions and standbys are not included.
    """
    return digest(
        {name: _json([table.version, definition(table)]) for name, table in catalog.tables.items()},
    )


def table_digests(catalog: Catalog) -> dict[str, bytes]:
    """Return a few bytes for each table, which differ if its definition or version differs.

    They identify the tables in which two catalogs differ, once their catalog_digest() differs.
    """
    return {
        name: bytes.fromhex(digest({name: _json([table.version, definition(table)])}))[:SHORT_DIGEST_BYTES]
        for name, table in catalog.tables.items()
    }


def _schema(schema: str | int | SchemaFile) -> str:
    if isinstance(schema, SchemaFile):
        return f"file {hashlib.sha256(schema.text.encode()).hexdigest()[: 2 * DIGEST_BYTES]}"
    return str(schema)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
