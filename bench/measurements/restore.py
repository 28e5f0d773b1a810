"""Restore: a program that has lost its disk rebuilds its store from its changelog."""

from bench.peers.peer import Peer, looks
from bench.setting import Setting
from bench.source import Produced
from bench.usage import Usage

RATE = "restore, source records/s"
CPU = "restore, CPU us a source record"

_PAUSE = 0.02
_TIMEOUT_SECONDS = 120.0


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
    async for progress, used in looks(peer, _PAUSE, _TIMEOUT_SECONDS):
        if caught_up and progress.caught_up:
            return used
        if not caught_up and progress.assigned:
            return progress.assigned_at or used
    raise AssertionError("looks() ends with an error only")
