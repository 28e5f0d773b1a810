"""Chooses the members of a group that may hold shards, from the whole group, regardless of each member's topics.

- A ghost gets nothing: of several members with the same worker id only the highest incarnation counts (and of equal
  incarnations, as from a copied data directory, the lowest member id).
- Of several worker ids with the same URL only one counts, because peers would reach one process under both ids: the one
  that holds the most shards, and of equals the lower worker id. The other waits until that one has left the group.
"""

from collections.abc import Mapping

from tablehouse.placement.wire import MemberMetadata


def eligible(members: Mapping[str, MemberMetadata]) -> list[str]:
    """Choose the member ids that may hold shards, ordered by worker id."""
    by_worker: dict[str, str] = {}
    for member in sorted(members):
        rival = by_worker.get(members[member].worker_id)
        if rival is None or members[member].incarnation > members[rival].incarnation:
            by_worker[members[member].worker_id] = member
    by_url: dict[str, str] = {}
    for worker in sorted(by_worker):
        member = by_worker[worker]
        rival = by_url.get(members[member].url)
        if rival is None or _held(members[member]) > _held(members[rival]):
            by_url[members[member].url] = member
    return sorted(by_url.values(), key=lambda member: members[member].worker_id)


def _held(metadata: MemberMetadata) -> int:
    return sum(len(positions) for positions in metadata.positions.values())
