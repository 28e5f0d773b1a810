"""Reads of tables whose producers put a key into any partition."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tablehouse.catalog.spec import Catalog
from tablehouse.errors import PartitionRestoring
from tablehouse.routing.tables import routed_tables
from tablehouse.stores.rows import Row
from tests.support.cluster_fakes import PLANES, Placed, everything
from tests.support.querying import Setting
from tests.support.schemas import NO_REGISTRY

COUNT = 4
KEY = b"N10156"


class Anywhere(Setting):
    """A worker that owns all partitions of a table with the partitioner any."""

    def __init__(self) -> None:
        super().__init__(Placed("me", "http://me:1", everything()))
        table = replace(PLANES, writable=False, source=replace(PLANES.source, partitioner="any"))
        self.query = self.query_of(routed_tables(Catalog({"planes": table}), "g", NO_REGISTRY))

    def record(self, partition: int, timestamp: int, payload: bytes | None) -> None:
        """Apply a record of the key in a partition."""
        row = Row(payload or b"", timestamp, 1, deleted=payload is None)
        self.local.rows["planes", partition, KEY] = row


HISTORIES = st.lists(st.tuples(st.integers(0, COUNT - 1), st.sampled_from([b"1", b"2", None])), max_size=12)


@given(HISTORIES)
async def test_whatever_was_written_last_is_the_answer_wherever_it_was_written(
    history: list[tuple[int, bytes | None]],
) -> None:
    setting = Anywhere()
    for timestamp, (partition, payload) in enumerate(history):
        setting.record(partition, timestamp, payload)
    expected = history[-1][1] if history else None
    row = (await setting.read(KEY)).result.row
    assert (None if row is None else row.payload) == expected
    assert sorted(partition for _, partition, _ in setting.local.asked) == list(range(COUNT))


@pytest.mark.parametrize("broken", range(COUNT))
async def test_a_partition_that_cannot_answer_may_have_a_newer_record(broken: int) -> None:
    setting = Anywhere()
    setting.record((broken + 1) % COUNT, 5, b"1")
    setting.local.errors[broken] = PartitionRestoring("restoring")
    error = await setting.error(KEY)
    assert isinstance(error, PartitionRestoring)
    assert error.details["partition"] == broken


def test_no_partition_answers_alone_and_all_are_where_the_key_can_be() -> None:
    setting = Anywhere()
    setting.record(0, 5, b"1")
    assert setting.query.look("planes", KEY) is None
    assert [location.partition for location in setting.query.locate("planes", KEY)[1]] == list(range(COUNT))
