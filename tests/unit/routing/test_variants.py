"""Reads of keys whose wire bytes have variants, not all of which this worker knows."""

from dataclasses import replace

import pytest

from tablehouse.catalog.spec import Catalog, KeyFormatName, KeySpec
from tablehouse.errors import InvalidKey, KeySchemaUnknown, PartitionRestoring, UriTooLong
from tablehouse.formats.partitioners import partition_of
from tablehouse.formats.schemas import Schema
from tablehouse.formats.variants import Known
from tablehouse.model import Role
from tablehouse.routing.query import Answer
from tablehouse.routing.tables import routed_tables
from tablehouse.stores.rows import Row
from tests.support.avro import avro_schema, written
from tests.support.cluster_fakes import PLANES, Placed, everything
from tests.support.querying import Setting
from tests.support.schemas import FetchedSchemas, framed

KEY = b"N10156"
COUNT = 4
SCHEMAS = range(1, 60)


class Variants(Setting):
    """A worker that owns all partitions of a table with keys behind one of SCHEMAS each, and knows some of these."""

    def __init__(self, *known: int, key: KeyFormatName = "avro") -> None:
        super().__init__(Placed("me", "http://me:1", everything()))
        schemas = [
            avro_schema(number, "string") if key == "avro" else Schema(number, "JSON", "{}") for number in SCHEMAS
        ]
        self.known = Known(FetchedSchemas(*schemas))
        for number in known:
            self.known.keys_of("planes-topic").learn(number.to_bytes(4, "big"))
        table = replace(PLANES, source=replace(PLANES.source, key=KeySpec(key)))
        self.tables = routed_tables(Catalog({"planes": table}), "g", self.known)
        self.query = self.query_of(self.tables)
        self.stored = (
            self.tables["planes"].keys.store(framed(9, written("string", KEY.decode()))) if key == "avro" else b""
        )

    def put(self, partition: int, timestamp: int) -> Row:
        """Let a partition have a row of the key."""
        row = self.local.rows["planes", partition, self.stored] = Row(b"{}", timestamp, 1)
        return row

    @property
    def asked(self) -> list[int]:
        """The partitions that were asked, in order."""
        return [partition for _, partition, _ in self.local.asked]


def place(number: int) -> int:
    """Return the partition of the key behind a schema."""
    return partition_of("murmur2", framed(number, written("string", KEY.decode())), COUNT)


def test_the_schemas_of_these_tests_put_the_key_into_several_partitions() -> None:
    assert {place(number) for number in SCHEMAS} == set(range(COUNT))


#: The schema that is learnt from the record whose key the tests store, and two of other partitions.
NINE = place(9)
OTHERS = [next(number for number in SCHEMAS if place(number) == where) for where in range(COUNT) if where != NINE]


async def test_a_row_in_a_known_partition_is_found_there_and_no_other_is_asked() -> None:
    setting = Variants()
    row = setting.put(NINE, 5)
    assert (await setting.read(KEY)).result.row == row
    assert setting.asked == [NINE]
    assert setting.counted("hit") == 1


async def test_of_rows_in_several_known_partitions_the_newest_counts() -> None:
    setting = Variants(*OTHERS[:2])
    setting.put(NINE, 5)
    newer = setting.put(place(OTHERS[0]), 9)
    setting.put(place(OTHERS[1]), 7)
    assert (await setting.read(KEY)).result.row == newer
    assert len(setting.asked) == 3


async def test_a_row_behind_a_schema_that_nobody_knows_is_found_in_whatever_partition_it_lies() -> None:
    setting = Variants()
    unknown = place(OTHERS[0])
    row = setting.put(unknown, 5)
    assert (await setting.read(KEY)).result.row == row
    assert setting.asked[0] == NINE
    assert sorted(setting.asked) == list(range(COUNT))


async def test_a_miss_is_one_of_every_partition() -> None:
    setting = Variants(*OTHERS)
    assert (await setting.read(KEY)).result.row is None
    assert sorted(setting.asked) == list(range(COUNT))
    assert setting.counted("miss") == 1


@pytest.mark.parametrize("broken", range(COUNT))
async def test_a_miss_with_one_partition_that_cannot_answer_is_a_503(broken: int) -> None:
    setting = Variants()
    setting.local.errors[broken] = PartitionRestoring("restoring")
    error = await setting.error(KEY)
    assert isinstance(error, PartitionRestoring)
    assert error.details["partition"] == broken


async def test_a_copy_that_is_not_active_cannot_say_that_there_is_none() -> None:
    setting = Variants()
    setting.local.role = Role.SUSPENDED
    assert isinstance(await setting.error(KEY), PartitionRestoring)


async def test_without_any_known_schema_an_avro_key_cannot_be_read_from_a_url() -> None:
    setting = Variants()
    setting.known.keys_of("planes-topic")._known = ()  # noqa: SLF001  as before the first record and the first list
    error = await setting.error(KEY)
    assert isinstance(error, KeySchemaUnknown)
    assert error.details["table"] == "planes"
    assert error.status == 503
    assert setting.asked == []
    with pytest.raises(KeySchemaUnknown):
        setting.query.look("planes", KEY)
    with pytest.raises(KeySchemaUnknown):
        setting.query.locate("planes", KEY)


@pytest.mark.parametrize("key", ["json_sr", "json_connect"])
async def test_without_any_known_variant_a_json_key_is_looked_for_everywhere(key: KeyFormatName) -> None:
    setting = Variants(key=key)
    assert (await setting.read(b'"N10156"')).result.row is None
    assert sorted(setting.asked) == list(range(COUNT))
    stored = setting.local.asked[0][2]
    row = setting.local.rows["planes", 2, stored] = Row(b"{}", 5, 1)
    assert (await setting.read(b'"N10156"')).result.row == row
    assert setting.query.look("planes", b'"N10156"') is None
    assert [location.partition for location in setting.query.locate("planes", b'"N10156"')[1]] == list(range(COUNT))


async def test_keys_that_are_none_are_refused_as_ever() -> None:
    setting = Variants()
    assert isinstance(await setting.error(b"\xff"), InvalidKey)
    assert isinstance(await setting.error(b"x" * 8193), UriTooLong)
    assert setting.asked == []


def test_a_look_answers_a_hit_in_the_one_known_partition_and_leaves_the_rest_to_read() -> None:
    setting = Variants()
    assert setting.query.look("planes", KEY) is None
    row = setting.put(NINE, 5)
    answer = setting.query.look("planes", KEY)
    assert isinstance(answer, Answer)
    assert (answer.result.row, answer.path) == (row, "local")
    setting.known.keys_of("planes-topic").learn(OTHERS[0].to_bytes(4, "big"))
    assert setting.query.look("planes", KEY) is None  # the other known partition may have a newer one


def test_locate_names_every_partition_the_known_ones_first() -> None:
    setting = Variants(OTHERS[0])
    _, locations = setting.query.locate("planes", KEY)
    found = [location.partition for location in locations]
    assert found[:2] == [NINE, place(OTHERS[0])]
    assert sorted(found) == list(range(COUNT))
