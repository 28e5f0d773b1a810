"""Ingest: from the first record in the table to the last, with the CPU that it takes."""

import asyncio
import time

from bench.figures import Point
from bench.peers.peer import Peer
from bench.setting import Setting
from bench.source import Produced
from bench.usage import Usage, usage

RATE = "ingest, records/s"
CPU = "ingest, CPU us a record"

_PAUSE = 0.25
#: Seconds after which a slow program has been watched long enough.
_LONGEST = 10.0
#: Seconds that a program may take from its start to its first record.
_PATIENCE = 60.0


async def ingest(setting: Setting, peer: Peer, produced: Produced, *, to_the_end: bool = True) -> None:
    """Watch a program that was just started on an empty state; unless `to_the_end`, for 10 s at most.

    The clock starts with the first look that finds records in the table, so start-up and group joining do not count.
    """
    records = produced.source.records
    deadline = time.monotonic() + _PATIENCE
    looks: list[tuple[int, Usage]] = []
    while not looks or looks[-1][0] < records:
        progress = await peer.progress()
        now = usage(peer.pid)
        if progress is not None and progress.applied:
            looks.append((progress.applied, now))
            if not to_the_end and now.at - looks[0][1].at > _LONGEST:
                break
        elif now.at > deadline:
            raise TimeoutError(f"{peer.name} has applied nothing within {_PATIENCE:.0f} s")
        await asyncio.sleep(_PAUSE)
    (seen, since), (applied, last) = looks[0], looks[-1]
    if applied == seen:
        raise RuntimeError(f"{peer.name} took {records} records between two looks: measure with more --records")
    rate = (applied - seen) / (last.at - since.at)
    cpu = 1e6 * (last.cpu - since.cpu) / (applied - seen)
    curve = [Point(at.at - since.at, count / 1e6) for count, at in looks]
    setting.figures.add(RATE, rate, peer.name)
    setting.figures.add(CPU, cpu, peer.name)
    setting.figures.curves["ingest"][peer.name] = curve
    setting.say(f"{peer.name}: ingest {rate:,.0f} records/s, {cpu:.1f} us of CPU a record")
