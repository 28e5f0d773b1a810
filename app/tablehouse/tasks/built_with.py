"""Checks, before a worker joins its group, that its tables were built with their present definitions.

Only a few records are read, so a changed definition may be missed. Tasks compare every claim that they read
(table_state.py), but by then the worker is a member, and its exit makes the group rebalance.
"""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress

from tablehouse.catalog.spec import TableSpec
from tablehouse.model import ShardId
from tablehouse.stores.store import StoreError
from tablehouse.tasks.definitions import family_name, identity_of
from tablehouse.tasks.identity import Identity, require_same_definition
from tablehouse.tasks.log import Bounds, LogReader, LogUnavailable, OffsetOutOfRange
from tablehouse.tasks.records import CLAIM_KEY, Checkpoint, Claim, MalformedRecord, decode
from tablehouse.tasks.served import Served
from tablehouse.tasks.shards import ShardSettings

#: Partitions of each changelog that are checked, and how many records before the end to read if the first records have
#: no claim.
LOOKED_AT, TAIL_RECORDS = 3, 500

#: Timeout for all changelogs together, in seconds.
PATIENCE = 10.0


async def check_definitions(settings: ShardSettings, served: Served, changelog: LogReader) -> None:
    """Raise FingerprintChanged when a changelog or a store says that a table was built with another definition.

    If no claim is found in a table's changelog, a store on this worker's disk is read instead, so no store may be open.
    Whatever cannot be read in time is left to the tasks.
    """
    seen = await check_changelogs(settings.group, served, changelog)
    for name in served.catalog.shard_names:
        tables = [table for table in served.catalog.tables_in(name) if table.name not in seen]
        shards = [ShardId(name, partition) for partition in range(served.partitions[name])]
        held = next((shard for shard in shards if settings.directory.shard(shard).exists()), None)
        if tables and held is not None:
            await asyncio.to_thread(_check_store, settings, served, tables, held)


async def check_changelogs(group: str, served: Served, changelog: LogReader) -> set[str]:
    """Return the tables whose changelogs have a claim with the table's present definition.

    Raises FingerprintChanged when a claim has another definition.
    """
    identities = [
        _identity(group, served, table, partition)
        for table in served.catalog.tables.values()
        for partition in range(min(LOOKED_AT, served.partitions[table.shard_name]))
    ]
    seen: set[str] = set()
    with suppress(LogUnavailable, TimeoutError):
        async with asyncio.timeout(PATIENCE):
            bounds = await changelog.bounds([identity.changelog for identity in identities])
            looks = [
                _look(changelog, identity, bounds[identity.changelog], seen)
                for identity in identities
                if identity.changelog in bounds
            ]
            await asyncio.gather(*looks)
    return seen


async def _look(changelog: LogReader, identity: Identity, bounds: Bounds, seen: set[str]) -> None:
    for offset in sorted({bounds.start, max(bounds.start, bounds.end - TAIL_RECORDS)}):
        if offset == bounds.end:
            return
        try:
            async with changelog.read(identity.changelog, offset) as cursor:
                records = (await cursor.next()).records
            claims = [decode(Claim, record.value or b"") for record in records if record.key == CLAIM_KEY]
        except (LogUnavailable, OffsetOutOfRange, MalformedRecord):
            return
        for claim in claims:
            _compare(identity, claim.fingerprint, str(identity.changelog))
        if claims:
            seen.add(identity.table)
            return


def _check_store(settings: ShardSettings, served: Served, tables: Collection[TableSpec], shard: ShardId) -> None:
    store = settings.store_of(shard)
    saved: dict[str, Checkpoint] = {}
    try:
        store.open([family_name(table) for table in served.catalog.tables_in(shard.name)])
        try:
            for table in tables:
                data = store.task(family_name(table)).checkpoint()
                if data is not None:
                    saved[table.name] = decode(Checkpoint, data)
        finally:
            store.close()
    except (StoreError, MalformedRecord):
        return
    for table in tables:
        if table.name in saved:
            identity = _identity(settings.group, served, table, shard.partition)
            _compare(identity, saved[table.name].fingerprint, "the store")


def _identity(group: str, served: Served, table: TableSpec, partition: int) -> Identity:
    return identity_of(group, table, partition, served.partitions[table.shard_name])


def _compare(identity: Identity, built_with: Mapping[str, str], where: str) -> None:
    ours = identity.fingerprint
    # A store of another group or layout is rebuilt, and partition counts are checked elsewhere.
    if built_with.get("group") == ours["group"] and built_with.get("table") == ours["table"]:
        same = {part: ours[part] for part in ("partitions", "row_layout")}
        require_same_definition(identity, {**built_with, **same}, where)
