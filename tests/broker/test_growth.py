"""A topic that has grown, and a new table over it: the new one is served, and the one of before says why it is not."""

import re
from pathlib import Path

import pytest

from tablehouse.errors import MisplacedKeys
from tablehouse.formats.partitioners import partition_of
from tablehouse.model import Consistency, ProducerRecord
from tablehouse.routing.digests import digest
from tablehouse.tasks.questions import MultiGet
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.engine import new_source, running_engine
from tests.support.kafka import add_partitions, produce
from tests.support.worker import table, tables

KEYS = [b"k%d" % number for number in range(20)]


async def test_a_new_table_over_a_grown_topic_is_served_and_holds_the_one_of_before_back(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    topic, group, definition = await new_source(kafka, 2)
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_active(2)
    await add_partitions(kafka.bootstrap_servers, topic, 3)
    await produce(kafka.bootstrap_servers, topic, [(key, b"1", partition_of("murmur2", key, 3)) for key in KEYS])
    definition = tables(table("t", topic) + "    writable: true\n", table("new", topic))
    for _ in range(2):
        async with running_engine(kafka, tmp_path, definition, group) as running:
            await running.wait_active(3)
            assert {name for name, _ in running.states()} == {"new"}
            await running.check_equal("new", 3)
            for key in KEYS:
                assert running.read("new", key, partition_of("murmur2", key, 3)).row is not None
            held = "table t is not served: topic .* has 3 partitions and the table was built with 2"
            with pytest.raises(MisplacedKeys, match=held):
                running.read("t", KEYS[0])
            with pytest.raises(MisplacedKeys, match=held):
                running.engine.local.answer("t", 0, MultiGet(KEYS), Consistency())
            with pytest.raises(MisplacedKeys, match=held):
                await digest(running.engine.local, "t", 0)
            with pytest.raises(MisplacedKeys, match="nothing was written"):
                await running.engine.local.append("t", 0, ProducerRecord(b"k", b"1"), 1.0)
            [reason] = running.engine.health.reasons()
            assert re.match(held, reason)
            assert (running.engine.local.table_reason("t"), running.engine.local.table_reason("new")) == (reason, None)
