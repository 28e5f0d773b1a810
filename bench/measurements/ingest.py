"""Ingest: from the first record in the table to the last, with the CPU that it takes."""

from bench.figures import Point
from bench.peers.peer import Look, Peer, looks
from bench.setting import Setting
from bench.source import Produced

RATE = "ingest, records/s"
CPU = "ingest, CPU us a record"

_PAUSE = 0.25
#: Seconds after which a slow program has been watched long enough.
_MAX_SECONDS = 5.0
_TIMEOUT_SECONDS = 300.0


async def ingest(setting: Setting, peer: Peer, produced: Produced, *, to_the_end: bool = True) -> None:
    """Watch a program that was just started on an empty state; unless `to_the_end`, for 5 s.

    The clock starts with the first look that finds records in the table, so start-up and group joining do not count.
    """
    records = produced.source.records
    seen: list[Look] = []
    async for look in looks(peer, _PAUSE, _TIMEOUT_SECONDS):
        applied = look.progress.applied
        if applied:
            seen.append(look)
        if applied >= records or (not to_the_end and seen and look.usage.at - seen[0].usage.at > _MAX_SECONDS):
            break
    (before, since), (after, last) = seen[0], seen[-1]
    applied = after.applied - before.applied
    if applied == 0:
        raise RuntimeError(f"{peer.name} took {records} records between two looks: measure with more --records")
    rate = applied / (last.at - since.at)
    cpu = 1e6 * (last.cpu - since.cpu) / applied
    curve = [Point(look.usage.at - since.at, look.progress.applied / 1e6) for look in seen]
    setting.figures.add(RATE, rate, peer.name)
    setting.figures.add(CPU, cpu, peer.name)
    setting.figures.curves["ingest"][peer.name] = curve
    setting.say(f"{peer.name}: ingest {rate:,.0f} records/s, {cpu:.1f} us of CPU a record")
