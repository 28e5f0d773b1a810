"""Finds members of a group that use a different tables.yaml, and the differences.

This is expected only during a rolling deployment.
"""

from collections.abc import Iterable, Mapping, Sequence

from tablehouse.placement.wire import CatalogInUse, MemberMetadata

#: Maximum number of tables that are named; of further ones only the count is given.
_NAMED = 5


def in_use(members: Mapping[str, MemberMetadata]) -> list[CatalogInUse]:
    """Return each catalog in use with its members; none if all members have the same one."""
    having: dict[str, list[MemberMetadata]] = {}
    for _, member in sorted(members.items()):
        having.setdefault(member.catalog_digest, []).append(member)
    if len(having) <= 1:
        return []
    return [CatalogInUse([member.worker_id for member in alike], alike[0].tables) for alike in having.values()]


def differences(own: Mapping[str, bytes], catalogs: Iterable[CatalogInUse]) -> dict[str, str]:
    """Return the differences of each worker, by its id, from tables with the digests `own`; equal ones are omitted."""
    return {
        worker: _in_words(own, catalog.tables)
        for catalog in catalogs
        if dict(catalog.tables) != dict(own)
        for worker in catalog.workers
    }


def _in_words(own: Mapping[str, bytes], theirs: Mapping[str, bytes]) -> str:
    if not theirs:
        return "it does not report its tables"
    changed = [name for name, digest in own.items() if theirs.get(name, digest) != digest]
    parts = [
        f"{_tables(changed)} defined differently there" if changed else "",
        f"{_tables(missing)} missing there" if (missing := [name for name in own if name not in theirs]) else "",
        f"{_tables(more)} missing here" if (more := [name for name in theirs if name not in own]) else "",
    ]
    return "; ".join(part for part in parts if part)


def _tables(names: Sequence[str]) -> str:
    named = ", ".join(sorted(names)[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"table {named} is" if len(names) == 1 else f"tables {named}{more} are"
