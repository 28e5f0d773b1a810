"""Every program over the same topic, one after the other, several rounds: ingest, then reads and restore."""

from collections.abc import Collection

from bench.measurements.ingest import ingest
from bench.measurements.reads import read
from bench.measurements.restore import restore
from bench.peers.kafka_streams.streams import KafkaStreams
from bench.peers.peer import check_rows, running, until_caught_up
from bench.peers.stock_faust import StockFaust
from bench.peers.tablehouse import Tablehouse
from bench.setting import Setting
from bench.source import Produced


async def side_by_side(setting: Setting, wanted: Collection[str]) -> None:
    """Measure what is wanted of ingest, reads and restore.

    Reads and restore need the table, so the peers that have them always ingest.
    """
    produced = await setting.topics.provide(setting.source)
    topic = produced.source.topic
    for number in range(setting.rounds):
        await _measure(setting, setting.worker(topic), produced, wanted)
        streams = KafkaStreams(setting.new_folder("streams"), setting.cores, setting.bootstrap, topic)
        await _measure(setting, streams, produced, wanted)
        if "ingest" in wanted:
            # Without a table, it only puts the figure with one into perspective: once is enough.
            for table in (True, False) if number == 0 else (True,):
                faust = StockFaust(setting.new_folder("faust"), setting.cores, setting.bootstrap, topic, table=table)
                async with running(faust):
                    await ingest(setting, faust, produced, to_the_end=False)


async def _measure(
    setting: Setting, peer: Tablehouse | KafkaStreams, produced: Produced, wanted: Collection[str]
) -> None:
    async with running(peer):
        await ingest(setting, peer, produced)
        await until_caught_up(peer, produced.source.records)
        await check_rows(peer, produced.last)
        if "reads" in wanted:
            await read(setting, peer, produced.source)
        if "restore" in wanted:
            await restore(setting, peer, produced)
            await check_rows(peer, produced.last)
    peer.wipe()
