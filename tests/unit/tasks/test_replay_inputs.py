"""A task with several inputs has a position in each of them, and what follows has to follow in every one."""

from dataclasses import replace

import msgspec
import pytest

from tablehouse.model import TopicPartition
from tablehouse.tasks.doubts import Doubts
from tablehouse.tasks.log import Bounds, LogSlice
from tablehouse.tasks.records import POSITION_KEY, PositionRecord, encode
from tablehouse.tasks.table_state import ChangelogRefused, TableState, Untrusted
from tablehouse.testing.simulated.broker import Record
from tablehouse.testing.simulated.store import MemoryStore
from tests.support.positions import with_names
from tests.unit.tasks.test_replay_state import (
    CHECKPOINT,
    EPOCH,
    IDENTITY,
    _Clock,
    checkpoint_of,
    position,
    record,
    state_at,
)

ORDERS, PAYMENTS = INPUTS = (TopicPartition("orders", 3), TopicPartition("payments", 3))
ORDERED = PositionRecord(0, 9, EPOCH).among(INPUTS, ORDERS, None)
PAID = PositionRecord(0, 4, EPOCH).among(INPUTS, PAYMENTS, ORDERED)
BEFORE = msgspec.structs.replace(CHECKPOINT, position=PAID, unbroken=True, v=2)


def of_several(offset: int, position: PositionRecord) -> Record:
    return record(offset, POSITION_KEY, encode(position))


async def several() -> tuple[TableState, MemoryStore]:
    """Return a state of two inputs, with 10 and 5 offsets applied, that stands before the next slice."""
    state, store = await state_at(encode(BEFORE), INPUTS)
    state.load()
    state.begin(Bounds(0, 12))
    state.rewind()
    return state, store


async def test_each_input_has_a_position_of_its_own_that_outlives_a_restart() -> None:
    state, store = await several()
    assert (state.applied(ORDERS), state.applied(PAYMENTS)) == (9, 4)
    third = PositionRecord(10, 11, EPOCH).among(INPUTS, ORDERS, PAID)
    fourth = PositionRecord(5, 5, EPOCH).among(INPUTS, PAYMENTS, third)
    await state.apply(LogSlice([of_several(12, third), of_several(13, fourth)], 14))
    assert (state.applied(ORDERS), state.applied(PAYMENTS)) == (11, 5)
    assert checkpoint_of(store).v == 2
    again = TableState(replace(IDENTITY, inputs=with_names(*INPUTS)), store, _Clock(), Doubts(lambda: None))
    again.load()
    assert (again.applied(ORDERS), again.applied(PAYMENTS), again.position) == (11, 5, fourth)


async def test_of_an_input_that_was_never_fed_nothing_is_applied() -> None:
    state, _ = await state_at(encode(msgspec.structs.replace(BEFORE, position=ORDERED)), INPUTS)
    state.load()
    assert (state.applied(ORDERS), state.applied(PAYMENTS)) == (9, -1)
    state.begin(Bounds(0, 12))
    state.rewind()
    await state.apply(LogSlice([of_several(12, PAID)], 13))
    assert (state.applied(ORDERS), state.applied(PAYMENTS)) == (9, 4)


@pytest.mark.parametrize(
    ("position", "why"),
    [
        (PositionRecord(11, 12, EPOCH).among(INPUTS, ORDERS, PAID), "source offsets 11 to 12 follow 9"),
        (PositionRecord(6, 6, EPOCH).among(INPUTS, PAYMENTS, PAID), "source offsets 6 to 6 follow 4"),
        (
            PositionRecord(10, 10, EPOCH).among(
                INPUTS, ORDERS, PositionRecord(0, 7, EPOCH).among(INPUTS, PAYMENTS, None)
            ),
            "source offsets 8 to 7 follow 4",
        ),
        (PositionRecord(10, 10, EPOCH).among(INPUTS, ORDERS, ORDERED), r"a position without payments\[3\], of which 4"),
    ],
    ids=["a hole in one", "a hole in the other", "another input has moved", "another input is gone"],
)
async def test_what_follows_a_position_directly_has_to_follow_it_in_every_input(
    position: PositionRecord, why: str
) -> None:
    state, _ = await several()
    with pytest.raises(Untrusted, match=why):
        await state.apply(LogSlice([of_several(12, position)], 13))


@pytest.mark.parametrize("source", INPUTS, ids=str)
async def test_behind_a_hole_no_input_may_go_back(source: TopicPartition) -> None:
    state, _ = await several()
    back = PositionRecord(0, 3, EPOCH).among(INPUTS, source, PAID)
    with pytest.raises(Untrusted, match="source offsets 0 to 3 follow"):
        await state.apply(LogSlice([of_several(14, back)], 15))


async def test_a_position_in_other_inputs_is_refused_and_in_a_checkpoint_the_stores_fault() -> None:
    state, _ = await several()
    with pytest.raises(ChangelogRefused, match=r"offset 12: a position in one input; the table reads orders\[3\], pay"):
        await state.apply(LogSlice([position(12, 10, 10)], 13))
    state, _ = await state_at(encode(BEFORE))
    with pytest.raises(Untrusted, match=r"a position in payments\[3\], orders\[3\]; the table reads source\[3\]"):
        state.load()
