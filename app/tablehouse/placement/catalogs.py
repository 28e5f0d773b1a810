"""Which members of a group read another tables.yaml, and what differs in it.

In the middle of a rolling deployment that is as it should be, and at no other time.
"""

from collections.abc import Iterable, Mapping, Sequence

from tablehouse.placement.wire import CatalogInUse, MemberMetadata

#: Tables that are named; of more only their number is told.
_NAMED = 5


def in_use(members: Mapping[str, MemberMetadata]) -> list[CatalogInUse]:
    """Return each catalog that members have, with these members; none when all have the same one."""
    having: dict[str, list[MemberMetadata]] = {}
    for _, member in sorted(members.items()):
        having.setdefault(member.catalog_digest, []).append(member)
    if len(having) <= 1:
        return []
    return [CatalogInUse([member.worker_id for member in alike], alike[0].tables) for alike in having.values()]


def differences(own: Mapping[str, bytes], catalogs: Iterable[CatalogInUse]) -> dict[str, str]:
    """Return what differs on each worker, by its id, from tables whose digests are `own`; those alike are missing."""
    return {
        worker: _in_words(own, catalog.tables)
        for catalog in catalogs
        if dict(catalog.tables) != dict(own)
        for worker in catalog.workers
    }


def _in_words(own: Mapping[str, bytes], theirs: Mapping[str, bytes]) -> str:
    if not theirs:
        return "it does not say which tables it has"
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
