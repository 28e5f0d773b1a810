"""Positions over HTTP: byte for byte what they were for tables of one topic, and with topics for tables of several."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from tablehouse.catalog.spec import Catalog
from tablehouse.errors import TooStale
from tablehouse.formats.partitioners import partition_of
from tablehouse.http.freshness import freshness_headers, freshness_of, refused_freshness_headers
from tablehouse.http.internal import StatusReport
from tablehouse.link.messages import Answer, decode_replies, encode
from tablehouse.model import Freshness, Role, TaskState, TaskStatus
from tablehouse.positions import Position
from tablehouse.routing.ports import Slice, Wanted
from tablehouse.routing.slices import decode_slices, encode_slices
from tablehouse.stores.rows import Row
from tablehouse.tasks.ranges import KeyedRow, RangeResult
from tablehouse.tasks.reads import ReadResult, SliceResult
from tests.support.cluster_fakes import PLANES, status
from tests.support.http_workers import Worker, ask, one_worker, share, start_worker
from tests.support.positions import at
from tests.support.several import union
from tests.unit.http.test_batch import post

KEY = b"N10156"
PARTITION = partition_of("murmur2", KEY, 4)
ROW = "/tables/planes/N10156"
SALES = union("sales", "planes-topic", "refunds")
KEYS = b'{"keys":["N10156"]}'
SALE = "/tables/sales/N10156"
TWO = Position((f"planes-topic/{PARTITION}", f"refunds/{PARTITION}"), (99, 31))

PLAIN = Freshness(2, at(2, 1207), Role.STANDBY, 3, None, 1)
SEVERAL = Freshness(2, Position.parse("orders/2:1207,refunds/2:31"), Role.STANDBY, 3, None, 1)

#: How a row's freshness crosses in MessagePack.
CROSSING = (
    b"\x86\xa9partition\x02\xa8position\xcd\x04\xb7\xa4role\xa7standby\xablag_records\x03\xacstaleness_ms\xc0"
    b"\xb0rejected_records\x01"
)


# Tables of one topic


def test_the_headers_of_a_plain_table_have_these_bytes() -> None:
    headers = {
        "Tablehouse-Partition": "2",
        "Tablehouse-Position": "2:1207",
        "Tablehouse-Role": "standby",
        "Tablehouse-Served-By": "w",
        "Tablehouse-Lag-Records": "3",
        "Tablehouse-Rejected-Records": "1",
    }
    assert list(freshness_headers(PLAIN, "w").items()) == list(headers.items())
    assert freshness_of(headers) == PLAIN


def test_a_part_of_a_batch_of_a_plain_table_has_these_bytes_between_workers() -> None:
    error = TooStale("late", position=1207)
    slices = [Slice(2, 2, SliceResult([b"v", None], PLAIN, None, error))]
    document = (
        b'{"type":"urn:tablehouse:problem:too_stale","title":"Too stale","status":503,"detail":"late",'
        b'"code":"too_stale","retryable":true,"position":1207}'
    )
    data = b"\x91\x97\x02\x02\xc0" + CROSSING + b"\x92\xc4\x01v\xc0\xc0\x92\xc4\x90" + document + b"\x01"
    assert encode_slices(slices) == data
    [(_, _, outcome)] = decode_slices(data, [Wanted(2, [b"a", b"b"])])
    assert isinstance(outcome, SliceResult)
    assert outcome.freshness == PLAIN


def test_the_status_of_a_task_of_a_plain_table_has_these_bytes_between_workers() -> None:
    task = TaskStatus("planes", 2, TaskState.STANDBY, at(2, 1207).in_json(2), 3, None, None, None, 10)
    assert msgspec.json.encode(StatusReport("w", 7, [task])) == (
        b'{"worker_id":"w","generation":7,"tasks":[{"table":"planes","partition":2,"state":3,"position":1207,'
        b'"lag_records":3,"staleness_ms":null,"restore_remaining":null,"reason":null,"rows_estimate":10,"stopped":false'
        b',"blocked":false,"held_back_seconds":0.0,"rejected_records":0,"rejection":null,"suspicion":null}]}'
    )


async def test_every_answer_about_a_plain_table_has_its_position_in_the_form_that_it_always_had() -> None:
    async with one_worker() as worker:
        worker.local.rows["planes", PARTITION, KEY] = Row(b"{}", 0, 41)
        worker.local.states = [status(partition=PARTITION)]
        for path in ("/tables/planes", "/cluster", "/readyz?verbose"):
            assert b'"position":99,' in (await worker.get(path)).body, path
        digest = await ask(worker.internal, f"/internal/v1/tables/planes/{PARTITION}:digest")
        assert b'"position_before":99,"position_after":99,' in digest.body
        assert (await worker.get(ROW)).headers["tablehouse-position"] == f"{PARTITION}:99"
        batch = await post(worker, KEYS)
        assert b'"position":"%d:99",' % PARTITION in batch.body
        late = await worker.get(f"{ROW}?min_position={PARTITION}:100&timeout_ms=0")
        assert (late.status, late.headers["tablehouse-position"]) == (503, f"{PARTITION}:99")
        assert b'"position":99,' in late.body


async def test_the_topic_of_a_table_of_one_topic_may_be_given_and_another_one_may_not() -> None:
    async with one_worker() as worker:
        worker.local.rows["planes", PARTITION, KEY] = Row(b"{}", 0, 41)
        assert (await worker.get(f"{ROW}?min_position=planes-topic/{PARTITION}:99,1:5")).status == 200
        assert worker.local.asked_for[-1].min_position == Position.parse(f"{PARTITION}:99,1:5")
        refused = await worker.get(f"{ROW}?min_position=ships-topic/{PARTITION}:99")
        assert (refused.status, refused.json["code"], refused.json["parameter"]) == (
            400,
            "invalid_parameter",
            "min_position",
        )
        assert refused.json["detail"] == (
            "min_position has a position in topic ships-topic, and table planes is made from planes-topic"
        )


# Tables of several topics


def test_a_position_in_several_topics_crosses_between_workers_in_every_form() -> None:
    headers = freshness_headers(SEVERAL, "w")
    assert headers["Tablehouse-Position"] == "orders/2:1207,refunds/2:31"
    assert freshness_of(headers) == SEVERAL
    slices = [Slice(2, 1, SliceResult([b"v"], SEVERAL))]
    assert list(decode_slices(encode_slices(slices), [Wanted(2, [b"a"])])) == slices
    replies = [
        Answer(1, RangeResult([KeyedRow(b"k", b"v", 5, 7)], SEVERAL)),
        Answer(2, ReadResult(Row(b"v", 5, 7), SEVERAL)),
    ]
    assert decode_replies(encode(replies)) == replies
    details = {"partition": 2, "position": "orders/2:1207,refunds/2:31", "role": "standby", "lag_records": 3}
    assert refused_freshness_headers(details)["Tablehouse-Position"] == "orders/2:1207,refunds/2:31"


@pytest_asyncio.fixture
async def workers() -> AsyncIterator[tuple[Worker, Worker]]:
    """Two workers with a table of one topic and one of two; the second holds everything."""
    catalog = Catalog({"planes": PLANES, "sales": SALES})
    running = await start_worker("a", catalog), await start_worker("b", catalog)
    share(running, {"b": range(4)})
    running[0].local.held.clear()
    running[1].local.positions[PARTITION] = TWO
    running[1].local.rows["sales", PARTITION, KEY] = Row(b"{}", 0, 41)
    try:
        yield running
    finally:
        for worker in running:
            await worker.server.stop(1.0)


async def test_answers_about_a_table_of_several_topics_name_them(workers: tuple[Worker, Worker]) -> None:
    workers[1].local.states = [
        TaskStatus("sales", PARTITION, TaskState.ACTIVE, TWO.in_json(PARTITION), 3, None, None, None, 10)
    ]
    for worker in workers:
        assert (await worker.get(SALE)).headers["tablehouse-position"] == TWO.text
        batch = await post(worker, KEYS, "sales")
        assert [part["position"] for part in batch.json["partitions"]] == [TWO.text]
        table = (await worker.get("/tables/sales")).json
        assert table["source"] == "planes-topic, refunds"
        assert table["partition_details"][PARTITION]["position"] == TWO.text


async def test_a_position_is_required_of_each_topic(workers: tuple[Worker, Worker]) -> None:
    for worker in workers:
        asked = f"planes-topic/{PARTITION}:99,refunds/{PARTITION}:31,refunds/9:77"
        assert (await worker.get(f"{SALE}?min_position={asked}")).status == 200
        assert (await worker.get(SALE, {"Tablehouse-Min-Position": asked})).status == 200
        assert workers[1].local.asked_for[-1].min_position == Position.parse(asked)
        late = await worker.get(f"{SALE}?min_position=refunds/{PARTITION}:32&timeout_ms=0")
        assert (late.status, late.json["code"], late.json["position"]) == (503, "position_not_reached", TWO.text)
        assert late.headers["tablehouse-position"] == TWO.text


async def test_all_of_a_position_is_waited_for_where_the_rows_are(workers: tuple[Worker, Worker]) -> None:
    local = workers[1].local
    asked = f"planes-topic/{PARTITION}:99,refunds/{PARTITION}:40&timeout_ms=60000"
    waiting = asyncio.create_task(workers[0].get(f"{SALE}?min_position={asked}"))
    await local.waiting.wait()
    local.positions[PARTITION] = Position(TWO.names, (120, 40))
    local.wake()
    reply = await waiting
    assert (reply.status, reply.headers["tablehouse-position"]) == (200, Position(TWO.names, (120, 40)).text)


@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        (
            "2:1207",
            (
                "has partition 2 without a topic, and table sales is made from several: give planes-topic/2:offset or "
                "refunds/2:offset"
            ),
        ),
        (
            "planes-topic/2:7,orders/2:1207",
            "has a position in topic orders, and table sales is made from planes-topic, refunds",
        ),
        ("planes-topic/2", "has to be partition:offset"),
        ("planes-topic/2:7,/2:7", "has to be partition:offset"),
    ],
)
async def test_a_position_that_names_no_input_of_the_table_is_a_400_that_says_what_does(
    workers: tuple[Worker, Worker], asked: str, detail: str
) -> None:
    for worker in workers:
        for reply, parameter in (
            (await worker.get(f"{SALE}?min_position={asked}"), "min_position"),
            (await worker.get(SALE, {"Tablehouse-Min-Position": asked}), "Tablehouse-Min-Position"),
            (await post(worker, KEYS, "sales", f"?min_position={asked}"), "min_position"),
        ):
            assert (reply.status, reply.json["code"], reply.json["parameter"]) == (400, "invalid_parameter", parameter)
            assert f"{parameter} {detail}" in reply.json["detail"]
    assert workers[1].local.asked == []
