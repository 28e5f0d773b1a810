"""An owner of a task with several inputs: each batch is of one of them, and a takeover looks at all."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tablehouse.model import TopicPartition
from tablehouse.tasks.ingest import LaneBatch
from tablehouse.tasks.records import InputSpan, anchor_of
from tablehouse.tasks.table_state import ChangelogRefused
from tablehouse.tasks.takeover import SourceRefused, Takeover
from tablehouse.testing.simulated.broker import Log
from tablehouse.testing.simulated.loop import run_virtual
from tests.unit.tasks.test_pipeline import Owner

ORDERS, PAYMENTS = INPUTS = (TopicPartition("orders", 0), TopicPartition("payments", 0))

Scene = Callable[[Owner], Coroutine[Any, Any, None]]


async def feed(owner: Owner, source: TopicPartition, *keys: bytes) -> None:
    """Produce records to an input, and have the owner apply them."""
    log = owner.world.sources[source]
    first = log.append([(key, b"v") for key in keys])
    owner.codec = owner.table.codec(source)
    pipeline = owner.pipeline()
    assert pipeline.needed == first
    await pipeline.feed(LaneBatch.of(log.read(first, 10)[0], first, log.end))
    await pipeline.settle()
    await pipeline.drop()


def fed(scene: Scene) -> Callable[[], None]:
    """Make a test, on virtual time, of an owner that has applied two orders, three payments and another order."""

    def test() -> None:
        async def run() -> None:
            owner = Owner("upsert", 1_000_000, inputs=INPUTS)
            await (await owner.claim()).drop()
            await feed(owner, ORDERS, b"a", b"b")
            await feed(owner, PAYMENTS, b"a", b"c", b"d")
            await feed(owner, ORDERS, b"e")
            await scene(owner)

        run_virtual(run())

    test.__name__, test.__module__ = scene.__name__, scene.__module__
    return test


async def restore(owner: Owner) -> None:
    """Take over as the next process would."""
    owner.state = owner.new_state()
    owner.state.load()
    await Takeover(owner.state, owner.ports()).restore()


@fed
async def test_each_batch_says_how_far_all_inputs_are(owner: Owner) -> None:
    orders, payments = (owner.world.sources[source].records for source in INPUTS)
    assert [(position.input, position.first, position.last) for _, position in owner.batches()] == [
        (ORDERS, 0, 1),
        (PAYMENTS, 0, 2),
        (ORDERS, 2, 2),
    ]
    first, second, third = (position for _, position in owner.batches())
    assert (first.of(ORDERS), first.of(PAYMENTS)) == (InputSpan(0, 1, anchor_of(orders[1])), None)
    assert second.of(ORDERS) == InputSpan(2, 1, anchor_of(orders[1]))
    assert third.of(ORDERS) == InputSpan(2, 2, anchor_of(orders[2]))
    assert third.of(PAYMENTS) == InputSpan(3, 2, anchor_of(payments[2]))
    assert (owner.state.applied(ORDERS), owner.state.applied(PAYMENTS)) == (2, 2)
    assert owner.state.reached.text == "orders/0:2,payments/0:2"
    assert owner.applied == [1, 4, 5], "the records of all inputs, less one"
    assert set(owner.payloads()) == {b"\x01" + key for key in (b"a", b"b", b"c", b"d", b"e")}


@fed
async def test_the_next_owner_restores_and_goes_on_in_every_input(owner: Owner) -> None:
    before = owner.state.reached
    await restore(owner)
    assert owner.state.reached == before
    await feed(owner, PAYMENTS, b"f")
    assert owner.state.reached.text == "orders/0:2,payments/0:3"
    assert (owner.state.applied(ORDERS), owner.state.applied(PAYMENTS)) == (2, 3)


def shorter(log: Log) -> None:
    log.end -= 1
    del log.records[-1]


def without_beginning(log: Log) -> None:
    log.append([(b"x", b"v"), (b"y", b"v")])
    log.start = log.end - 1
    log.records = log.records[-1:]


def another(log: Log) -> None:
    log.records[-1] = log.records[-1]._replace(value=b"another")


@pytest.mark.parametrize("source", INPUTS, ids=str)
@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (shorter, "ends at offset 2, but offset 2 was applied already"),
        (without_beginning, "begins at offset 4, but 3 comes next"),
        (another, "has another record at offset 2 than the one that was applied"),
    ],
)
def test_a_takeover_is_refused_for_any_input_that_is_not_the_one_applied(
    source: TopicPartition, harm: Callable[[Log], None], why: str
) -> None:
    @fed
    async def refused(owner: Owner) -> None:
        harm(owner.world.sources[source])
        with pytest.raises(SourceRefused, match=why) as raised:
            await restore(owner)
        assert str(source) in str(raised.value)

    refused()


@pytest.mark.parametrize("source", INPUTS, ids=str)
def test_a_takeover_is_refused_while_any_input_is_missing(source: TopicPartition) -> None:
    @fed
    async def refused(owner: Owner) -> None:
        owner.world.sources[source].missing = True
        with pytest.raises(SourceRefused, match="The table keeps the rows it has"):
            await restore(owner)
        owner.world.sources[source].missing = False
        await restore(owner)

    refused()


@pytest.mark.parametrize("source", INPUTS, ids=str)
def test_a_table_whose_changelog_is_gone_is_built_again_only_from_whole_inputs(source: TopicPartition) -> None:
    @fed
    async def refused(owner: Owner) -> None:
        owner.world.changelogs[owner.changelog] = Log(owner.world.wall_ms)
        without_beginning(owner.world.sources[source])
        with pytest.raises(ChangelogRefused, match="is empty, though the table had been built") as raised:
            await restore(owner)
        assert f"{source} begins at offset 4" in str(raised.value)

    refused()
