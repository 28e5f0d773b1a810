"""An owner whose records need schemas, from a registry that is not always there."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from tablehouse.formats.schemas import Schema
from tablehouse.tasks.ingest import LaneBatch
from tablehouse.tasks.pipeline import IDLE_POSITION_INTERVAL, LANE_TIMEOUT_SECONDS, NotContiguous, Pipeline
from tablehouse.testing.simulated.broker import Record
from tablehouse.testing.simulated.loop import run_virtual
from tests.support.schemas import decode_framed, framed
from tests.unit.tasks.test_pipeline import SOURCE, Owner, Scene

SEVEN = Schema(7, "AVRO", "seven")
EIGHT = Schema(8, "AVRO", "eight")


def owned(table: str = "upsert", limit: int = 1_000_000) -> Callable[[Scene], Callable[[], None]]:
    """Make a test, on virtual time, of an owner of framed values; its registry has SEVEN and EIGHT."""

    def decorate(scene: Scene) -> Callable[[], None]:
        def test() -> None:
            async def run() -> None:
                owner = Owner(table, limit)
                owner.schemas.registered = {schema.id: schema for schema in (SEVEN, EIGHT)}
                owner.codec = replace(owner.codec, decode_value=partial(decode_framed, owner.schemas))
                pipeline = await owner.claim()
                await scene(owner, pipeline)
                await pipeline.drop()

            run_virtual(run())

        test.__name__, test.__module__ = scene.__name__, scene.__module__
        return test

    return decorate


def record(offset: int, schema_id: int = 7, key: bytes | None = None) -> Record:
    return Record(offset, 1000 + offset, key or b"k%d" % offset, framed(schema_id, b"%d" % offset))


def waiting(owner: Owner) -> float | None:
    """Return how many partitions are said to wait."""
    labels = {"table": owner.table.name}
    return owner.metrics.registry.get_sample_value("tablehouse_partitions_waiting_for_schemas", labels)


async def feed_while_away(owner: Owner, pipeline: Pipeline, batch: LaneBatch) -> "asyncio.Task[None]":
    """Feed a batch while the registry is away, and return once the pipeline waits."""
    owner.schemas.go_away()
    feeding = asyncio.get_running_loop().create_task(pipeline.feed(batch))
    await owner.world.until(lambda: pipeline.waits_for is not None or feeding.done(), "the wait")
    return feeding


@owned()
async def test_nothing_moves_until_the_schema_is_there_and_then_everything_is_folded(
    owner: Owner, pipeline: Pipeline
) -> None:
    source = [Record(0, 1000, None, b"no key"), record(1), Record(2, 1002, b"k2", b"not framed"), record(3)]
    feeding = await feed_while_away(owner, pipeline, LaneBatch.of(source, 0, 4))
    assert pipeline.waits_for == "waits for schema 7 of the registry in memory: away"
    assert (waiting(owner), pipeline.needed, owner.batches(), owner.payloads()) == (1, 0, [], {})
    assert owner.skipped("null_key") == 0
    owner.schemas.come_back()
    await feeding
    await pipeline.settle()
    assert owner.payloads() == {b"\x01k1": b"seven:1", b"\x01k3": b"seven:3"}
    assert (owner.spans(), owner.skipped("null_key"), owner.skipped("undecodable_value")) == ([(0, 3)], 1, 1)
    assert (waiting(owner), owner.state.applied(SOURCE)) == (0, 3)


@owned()
async def test_each_schema_of_a_batch_is_fetched_once(owner: Owner, pipeline: Pipeline) -> None:
    await pipeline.feed(LaneBatch.of([record(0), record(1, 8), record(2), record(3, 8)], 0, 4))
    await pipeline.settle()
    assert owner.schemas.fetches == [7, 8]
    assert [owner.payloads()[b"\x01k%d" % offset] for offset in range(4)] == [
        b"seven:0",
        b"eight:1",
        b"seven:2",
        b"eight:3",
    ]


@owned()
async def test_what_has_no_schema_at_all_is_skipped_and_its_neighbours_are_not(
    owner: Owner, pipeline: Pipeline
) -> None:
    await pipeline.feed(LaneBatch.of([record(0), record(1, 9), record(2)], 0, 3))
    await pipeline.settle()
    assert owner.payloads() == {b"\x01k0": b"seven:0", b"\x01k2": b"seven:2"}
    assert (owner.skipped("undecodable_value"), owner.state.applied(SOURCE)) == (1, 2)


@owned(limit=500)
async def test_parts_of_a_batch_that_are_on_their_way_are_not_sent_again(owner: Owner, pipeline: Pipeline) -> None:
    source = [*(record(offset) for offset in range(20)), Record(20, 1020, b"bad", b"bad"), record(21, 8)]
    await pipeline.feed(LaneBatch.of([record(0)], 0, 1))
    feeding = await feed_while_away(owner, pipeline, LaneBatch.of(source, 0, 25))
    before = owner.spans()
    assert 0 < pipeline.needed < 22
    assert owner.state.applied(SOURCE) == pipeline.needed - 1, "what was on its way is applied while the others wait"
    owner.schemas.come_back()
    await feeding
    await pipeline.settle()
    spans = owner.spans()
    assert spans[: len(before)] == before
    assert [first for first, _ in spans] == [0, *(last + 1 for _, last in spans[:-1])]
    assert (spans[-1][1], owner.skipped("undecodable_value"), len(owner.payloads())) == (24, 1, 21)


@owned("count")
async def test_records_are_counted_once_on_top_of_what_was_in_flight(owner: Owner, pipeline: Pipeline) -> None:
    await pipeline.feed(LaneBatch.of([record(0, key=b"a"), record(1, key=b"a")], 0, 2))
    feeding = await feed_while_away(
        owner, pipeline, LaneBatch.of([record(2, key=b"a"), record(3, 8, key=b"a"), record(4, key=b"b")], 2, 5)
    )
    assert owner.payloads() == {b"\x01a": b"2"}
    owner.schemas.come_back()
    await feeding
    await pipeline.settle()
    assert owner.payloads() == {b"\x01a": b"4", b"\x01b": b"1"}


@owned()
async def test_whoever_lost_the_partition_hears_of_it_and_does_not_wait(owner: Owner, pipeline: Pipeline) -> None:
    await pipeline.feed(LaneBatch.of([Record(0, 1, b"k", None)], 0, 1))
    owner.log.append([(b"\x01foreign", b"row")])
    owner.schemas.go_away()
    with pytest.raises(NotContiguous):
        await pipeline.feed(LaneBatch.of([record(1)], 1, 2))
    assert (pipeline.waits_for, owner.schemas.fetches) == (None, [])


@owned()
async def test_a_wait_can_be_given_up_at_once_and_leaves_nothing_behind(owner: Owner, pipeline: Pipeline) -> None:
    feeding = await feed_while_away(owner, pipeline, LaneBatch.of([record(0)], 0, 1))
    began = asyncio.get_running_loop().time()
    await pipeline.rest(10)
    feeding.cancel()
    await asyncio.wait({feeding})
    await pipeline.drop()
    assert asyncio.get_running_loop().time() == began
    assert (feeding.cancelled(), waiting(owner), owner.batches(), pipeline.needed) == (True, 0, [], 0)


@owned()
async def test_a_short_wait_keeps_the_place_on_the_lane_and_a_long_one_gives_it_up_once(
    owner: Owner, pipeline: Pipeline
) -> None:
    feeding = await feed_while_away(owner, pipeline, LaneBatch.of([record(0)], 0, 1))
    await asyncio.sleep(LANE_TIMEOUT_SECONDS / 2)
    owner.schemas.come_back()
    await feeding
    assert owner.steps_aside == 0
    feeding = await feed_while_away(owner, pipeline, LaneBatch.of([record(1, 8)], 1, 2))
    await asyncio.sleep(2 * LANE_TIMEOUT_SECONDS)
    assert (owner.steps_aside, feeding.done()) == (1, False)
    owner.schemas.come_back()
    await feeding
    await pipeline.settle()
    assert (owner.steps_aside, owner.state.applied(SOURCE)) == (1, 1)


@owned()
async def test_an_owner_that_waits_for_long_repeats_its_position_so_that_its_epoch_is_not_forgotten(
    owner: Owner, pipeline: Pipeline
) -> None:
    await pipeline.feed(LaneBatch.of([record(0)], 0, 1))
    feeding = await feed_while_away(owner, pipeline, LaneBatch.of([record(1, 8)], 1, 2))
    await asyncio.sleep(2 * IDLE_POSITION_INTERVAL + 60)
    assert owner.spans() == [(0, 0), (1, 0), (1, 0)]
    assert (feeding.done(), waiting(owner)) == (False, 1)
    owner.schemas.come_back()
    await feeding
    await pipeline.settle()
    assert owner.spans() == [(0, 0), (1, 0), (1, 0), (1, 1)]
    assert owner.payloads() == {b"\x01k0": b"seven:0", b"\x01k1": b"eight:1"}
