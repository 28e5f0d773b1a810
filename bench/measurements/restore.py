"""Restore: a program that has lost its disk rebuilds its store from its changelog."""

import asyncio
import time

from bench.peers.peer import Peer
from bench.setting import Setting
from bench.source import Produced
from bench.usage import Usage, usage

RATE = "restore, source records/s"
CPU = "restore, CPU us a source record"

_PAUSE = 0.02
_PATIENCE = 120.0


async def restore(setting: Setting, peer: Peer, produced: Produced) -> None:
    """Stop the program, delete its state, start it, and time it from its assignment to serving everything.

    Counted are the source's records. A changelog has fewer, as far as batches or caches have folded records of one key
    together; what that saves is part of the result.
    """
    await peer.stop()
    peer.wipe()
    peer.start()
    since = await _when(peer, caught_up=False)
    until = await _when(peer, caught_up=True)
    records = produced.source.records
    rate = records / (until.at - since.at)
    cpu = 1e6 * (until.cpu - since.cpu) / records
    setting.figures.add(RATE, rate, peer.name)
    setting.figures.add(CPU, cpu, peer.name)
    setting.say(f"{peer.name}: restore {rate:,.0f} records/s, {cpu:.1f} us of CPU a record")


async def _when(peer: Peer, *, caught_up: bool) -> Usage:
    deadline = time.monotonic() + _PATIENCE
    while True:
        progress = await peer.progress()
        now = usage(peer.pid)
        if progress is not None and (progress.caught_up if caught_up else progress.assigned):
            return now if caught_up or progress.assigned_at is None else progress.assigned_at
        if now.at > deadline:
            raise TimeoutError(f"{peer.name} has not restored its table within {_PATIENCE:.0f} s: {progress}")
        await asyncio.sleep(_PAUSE)
