"""Many writes with one request, through real servers over a source that notes what it is given."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
import pytest_asyncio

from tablehouse.catalog.spec import Catalog, KeySpec, SourceSpec, TableSpec, ValueSpec
from tablehouse.errors import DeadlineExceeded, MisplacedKeys, PayloadTooLarge, RequestError, WriteRefused
from tablehouse.formats.encoding import Record
from tablehouse.formats.keys import Key
from tablehouse.formats.partitioners import partition_of
from tablehouse.http.batch_put import MAX_BODY_BYTES, MAX_LINE_BYTES, MAX_LINES
from tablehouse.model import ProducerRecord
from tablehouse.routing.tables import RoutedTable
from tablehouse.routing.write_batch import WINDOW_ROWS
from tablehouse.routing.writes import Writes
from tablehouse.turns import Turns
from tests.support.cluster_fakes import Placed, snapshot
from tests.support.http_workers import Reply, Worker, one_worker, send, start_worker, two_workers

NDJSON = "application/x-ndjson"


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[Worker]:
    async with one_worker() as running:
        yield running


def partition(key: bytes) -> int:
    return partition_of("murmur2", key, 4)


async def post(
    worker: Worker, body: bytes, table: str = "planes", headers: Mapping[str, str] | None = None, query: str = ""
) -> Reply:
    lines = [
        f"POST /tables/{table}:batch-put{query} HTTP/1.1",
        "Host: test",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in ({"Content-Type": NDJSON} | dict(headers or {})).items()),
    ]
    return await send(worker.url, "\r\n".join([*lines, "", ""]).encode() + body)


async def put(worker: Worker, *lines: bytes, table: str = "planes") -> list[Any]:
    reply = await post(worker, b"\n".join(lines) + b"\n", table)
    assert reply.status == 200, reply
    assert len(reply.json["results"]) == len(lines)
    results: list[Any] = reply.json["results"]
    return results


def codes(results: Sequence[Any]) -> list[str]:
    return [result["error"]["code"] if "error" in result else "" for result in results]


async def test_each_line_is_written_to_the_partition_of_its_key_and_its_outcome_says_where(worker: Worker) -> None:
    keys = [f"k{number}" for number in range(40)]
    lines = [msgspec.json.encode({"key": key, "value": {"n": number}}) for number, key in enumerate(keys)]
    lines[7] = b'{"key": "k7", "delete": true}'
    reply = await post(worker, b"\n".join(lines))
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    offsets: dict[int, int] = {}
    for number, (key, result) in enumerate(zip(keys, reply.json["results"], strict=True)):
        place = partition(key.encode())
        offset = offsets[place] = offsets.get(place, 99) + 1
        assert result == {"status": 200, "position": f"{place}:{offset}"}
        value = None if number == 7 else b'{"n":%d}' % number
        assert ("planes", place, key.encode(), value) in worker.source.records
    assert len(worker.source.records) == 40
    assert reply.json["position"] == ",".join(f"{place}:{offset}" for place, offset in sorted(offsets.items()))
    metrics = (await worker.get("/metrics")).body.decode()
    assert 'tablehouse_writes_total{result="written",table="planes"} 40.0' in metrics


async def test_rows_of_one_key_keep_their_order_however_many_there_are(worker: Worker) -> None:
    rows = 3 * WINDOW_ROWS + 5
    keys = [b"k%d" % (number % 7) for number in range(rows)]
    lines = [
        b'{"key":"%b","delete":true}' % key if number % 5 == 0 else b'{"key":"%b","value":%d}' % (key, number)
        for number, key in enumerate(keys)
    ]
    assert codes(await put(worker, *lines)) == [""] * rows
    for wanted in set(keys):
        written = [value for _, _, key, value in worker.source.records if key == wanted]
        assert written == [
            None if number % 5 == 0 else b"%d" % number for number, key in enumerate(keys) if key == wanted
        ]


async def test_values_are_written_byte_for_byte_and_null_is_a_row_of_a_table_of_json(worker: Worker) -> None:
    value = b'{ "seats" : 1.50, "big": 123456789012345678901234567890 }'
    assert codes(await put(worker, b'{"key":"a","value": ' + value + b" }", b'{"value":null,"key":"b"}')) == ["", ""]
    assert {(key, value) for _, _, key, value in worker.source.records} == {(b"a", value), (b"b", b"null")}


async def test_rows_of_bytes_are_base64_as_batches_show_them(worker: Worker) -> None:
    lines = [
        b'{"key":"_wA","value":"AP7/"}',
        b'{"key":"_wA","value":"*"}',
        b'{"key":"_wA","value":null}',
        b'{"key":"_wA","value":""}',
        b'{"key":"_wA","delete":true}',
    ]
    results = await put(worker, *lines, table="blobs")
    assert codes(results) == ["", "invalid_body", "invalid_body", "invalid_body", ""]
    assert '"delete": true' in results[2]["error"]["detail"]
    assert [record[2:] for record in worker.source.records] == [(b"\xff\x00", b"\x00\xfe\xff"), (b"\xff\x00", None)]


async def test_rows_of_text_are_json_strings_and_integer_keys_can_be_numbers() -> None:
    names = TableSpec("names", SourceSpec("planes-topic", KeySpec("long"), ValueSpec("string")), writable=True)
    worker = await start_worker("a", Catalog({"names": names}))
    worker.view.swap(snapshot(Placed("a", worker.internal, {"planes-topic": range(4)})))
    try:
        lines = [b'{"key":7,"value":"a \\"b\\" \\u00e9"}', b'{"key":"8","value":5}', b'{"key":1.5,"delete":true}']
        results = await put(worker, *lines, table="names")
        assert codes(results) == ["", "invalid_body", "invalid_key"]
        assert [record[2:] for record in worker.source.records] == [((7).to_bytes(8, "big"), 'a "b" \u00e9'.encode())]
    finally:
        await worker.server.stop(1.0)


async def test_a_key_of_several_forms_is_deleted_under_each_and_keeps_its_order() -> None:
    people = TableSpec("people", SourceSpec("planes-topic", KeySpec("json"), ValueSpec("json")), writable=True)
    worker = await start_worker("a", Catalog({"people": people}))
    worker.view.swap(snapshot(Placed("a", worker.internal, {"planes-topic": range(4)})))
    canonical, other = '"\U0001f601"'.encode(), b'"\\uD83D\\uDE01"'
    key = msgspec.json.encode(canonical.decode())
    try:
        lines = [
            b'{"key":%b,"value":1}' % key,
            b'{"key":7,"value":2}',
            b'{"key":%b,"delete":true}' % key,
            b'{"key":%b,"value":3}' % key,
        ]
        results = await put(worker, *lines, table="people")
        assert codes(results) == [""] * 4
        of_key = [record[1:] for record in worker.source.records if record[2] != b"7"]
        places = [partition(canonical), partition(other)]
        assert places[0] != places[1]
        assert of_key == [
            (places[0], canonical, b"1"),
            (places[1], other, None),
            (places[0], canonical, None),
            (places[0], canonical, b"3"),
        ]
        assert results[2]["position"].count(":") == 2
    finally:
        await worker.server.stop(1.0)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "invalid_body"),
        (b"{", "invalid_body"),
        (b'"a"', "invalid_body"),
        (b"{}", "invalid_body"),
        (b'{"key":"a"}', "invalid_body"),
        (b'{"value":1}', "invalid_body"),
        (b'{"key":"a","delete":false}', "invalid_body"),
        (b'{"key":"a","delete":1}', "invalid_body"),
        (b'{"key":"a","delete":true,"value":1}', "invalid_body"),
        (b'{"key":"a","delete":false,"value":1}', "invalid_body"),
        (b'{"key":"a","value":1,"ttl":5}', "invalid_body"),
        (b'{"key":"a","value":1} {}', "invalid_body"),
        (b'{"key":"a","value":"\xff"}', "invalid_body"),
        (b'{"key":"a","value":1e999}', "invalid_body"),
        (b'{"key":"a","value":' + b"[" * 501 + b"]" * 501 + b"}", "invalid_body"),
        (b'{"key":"a","value":"' + b"x" * MAX_LINE_BYTES + b'"}', "payload_too_large"),
        (b'{"key":7,"value":1}', "invalid_key"),
        (b'{"key":null,"value":1}', "invalid_key"),
        (b'{"key":"' + b"k" * 9_000 + b'","value":1}', "uri_too_long"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_line_that_cannot_be_written_has_an_error_and_the_others_are_written(
    worker: Worker, line: bytes, code: str
) -> None:
    results = await put(worker, b'{"key":"before","value":1}', line, b'{"key":"after","value":1}\r')
    assert codes(results) == ["", code, ""]
    assert results[1]["error"]["retryable"] is False
    assert [record[2] for record in worker.source.records] == [b"before", b"after"]


@pytest.mark.parametrize(
    ("body", "table", "headers", "status", "code"),
    [
        (b"{}\n", "nope", {}, 404, "table_not_found"),
        (b"{}\n", "numbers", {}, 405, "not_writable"),
        (b"{}\n", "planes", {"Content-Type": "application/json"}, 415, "unsupported_media_type"),
        (b"{}\n", "planes", {"Content-Encoding": "gzip"}, 415, "unsupported_media_type"),
        (b"{}\n", "planes", {"If-Match": '"a"'}, 400, "invalid_parameter"),
        (b"\n" * (MAX_LINES + 1), "planes", {}, 400, "invalid_body"),
        (b" " * (MAX_BODY_BYTES + 1), "planes", {}, 413, "payload_too_large"),
    ],
)
async def test_what_concerns_all_lines_is_an_error_and_nothing_is_written(
    worker: Worker, body: bytes, table: str, headers: Mapping[str, str], status: int, code: str
) -> None:
    reply = await post(worker, body, table, headers)
    assert (reply.status, reply.json["code"]) == (status, code)
    assert worker.source.records == []


async def test_a_table_that_is_not_writable_has_no_such_method(worker: Worker) -> None:
    for reply in (await post(worker, b"", "numbers"), await worker.get("/tables/numbers:batch-put", method="OPTIONS")):
        assert reply.headers["allow"] == "OPTIONS"
    assert (await worker.get("/tables/planes:batch-put", method="OPTIONS")).headers["allow"] == "POST, OPTIONS"


async def test_no_lines_are_no_results_and_10_000_are_taken(worker: Worker) -> None:
    assert (await post(worker, b"")).json == {"results": [], "position": None}
    reply = await post(worker, b'{"key":"a","value":1}\n' * MAX_LINES)
    assert codes(reply.json["results"]) == [""] * MAX_LINES
    assert reply.json["position"] == f"{partition(b'a')}:{99 + MAX_LINES}"


async def test_a_worker_without_an_assignment_writes_nothing() -> None:
    worker = await start_worker("lonely")
    try:
        reply = await post(worker, b'{"key":"a","value":1}\n')
        assert (reply.status, reply.json["code"]) == (503, "partition_unassigned")
    finally:
        await worker.server.stop(1.0)


@pytest.mark.parametrize(
    ("error", "status"),
    [(MisplacedKeys("keys lie elsewhere"), 503), (PayloadTooLarge("the record is too large"), 413)],
)
async def test_what_the_source_refuses_is_the_error_of_its_lines(
    worker: Worker, error: RequestError, status: int
) -> None:
    worker.source.error = error
    results = await put(worker, b'{"key":"a","value":1}', b'{"key":"b","value":2}')
    assert [result["status"] for result in results] == [status, status]
    assert codes(results) == [error.code] * 2
    metrics = (await worker.get("/metrics")).body.decode()
    assert 'tablehouse_writes_total{result="unavailable",table="planes"} 2.0' in metrics


async def test_after_an_unknown_outcome_nothing_more_of_the_batch_is_written_to_that_partition(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = next(key for key in (b"o%d" % number for number in range(99)) if partition(key) != partition(b"a"))
    worker.source.error, worker.source.taken = DeadlineExceeded("it may have been written"), WINDOW_ROWS
    lines = [b'{"key":"a","value":%d}' % number for number in range(WINDOW_ROWS + 1)]
    append_many = worker.source.append_many

    async def failing_once(
        table: str,
        place: int,
        records: Sequence[ProducerRecord],
        timeout: float,  # noqa: ASYNC109
    ) -> Sequence[int | RequestError]:
        outcomes = await append_many(table, place, records, timeout)
        if any(isinstance(outcome, RequestError) for outcome in outcomes):
            worker.source.error = None
        return outcomes

    monkeypatch.setattr(worker.source, "append_many", failing_once)
    lines += [b'{"key":"a","value":-1}'] * WINDOW_ROWS + [b'{"key":"%b","value":5}' % other]
    results = await put(worker, *lines)
    assert codes(results[:WINDOW_ROWS]) == [""] * WINDOW_ROWS
    assert codes(results[WINDOW_ROWS : WINDOW_ROWS + 1]) == ["deadline_exceeded"]
    # The same window went to the source before the outcome was known; the one after it did not.
    assert codes(results[2 * WINDOW_ROWS : -1]) == ["source_unavailable"]
    assert "an earlier row of the batch" in results[-2]["error"]["detail"]
    assert codes(results[-1:]) == [""]


async def test_lines_that_curl_has_joined_are_told_how_to_send_them(worker: Worker) -> None:
    [result] = await put(worker, b'{"key":"a","value":1}{"key":"b","value":2}')
    assert result["error"]["code"] == "invalid_body"
    assert "it is not JSON: trailing characters" in result["error"]["detail"]
    assert "--data-binary" in result["error"]["detail"]


async def test_lines_of_a_key_keep_their_order_when_it_gets_another_first_form_in_between(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = next(key for key in (b"o%d" % number for number in range(99)) if partition(key) != partition(b"one"))
    forms = [b"one", other]
    written = 0

    async def record(_writes: Writes, _table: RoutedTable, key_text: bytes, payload: bytes | None, _: float) -> Record:
        nonlocal written
        written += 1
        return Record(Key(key_text, tuple(forms[written % 2 :] + forms[: written % 2]), enumerable=False), payload)

    monkeypatch.setattr(Writes, "record", record)
    lines = [b'{"key":"a","value":%d}' % number for number in range(6)]
    assert codes(await put(worker, *lines)) == [""] * 6
    assert [value for *_, value in worker.source.records] == [b"%d" % number for number in range(6)]
    assert len({place for _, place, *_ in worker.source.records}) == 2


async def test_lines_of_a_partition_whose_owner_applies_nothing_more_are_refused_alone() -> None:
    async with two_workers() as (one, two):
        refused = partition(b"k1")
        owner = one if refused < 2 else two
        why = "the topic was created again: give the table a new version"
        owner.local.write_errors[refused] = WriteRefused(why, retry_after=60)
        keys = [b"k%d" % number for number in range(30)]
        for worker in (one, two):
            results = await put(worker, *(b'{"key":"%b","value":1}' % key for key in keys))
            assert codes(results) == ["write_refused" if partition(key) == refused else "" for key in keys]
            assert {record[1] for record in worker.source.records} == {0, 1, 2, 3} - {refused}


async def test_owners_are_asked_once_for_a_partition_and_not_again_for_a_second() -> None:
    async with two_workers() as (one, _):
        lines = [b'{"key":"k%d","value":1}' % number for number in range(60)]
        for _ in range(2):
            assert codes(await put(one, *lines)) == [""] * 60
        forwards = one.metrics.registry.get_sample_value("tablehouse_forward_requests_total", {"outcome": "ok"})
        assert forwards == 2


async def test_others_have_turns_while_a_batch_is_written(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0
    wait = Turns.wait

    async def counted(self: Turns) -> None:
        nonlocal turns
        turns += 1
        await wait(self)

    monkeypatch.setattr(Turns, "wait", counted)
    await put(worker, *[b'{"key":"a","value":1}'] * 5_000)
    assert turns >= 5_000 // 64


async def test_a_batch_is_as_the_document_says(worker: Worker) -> None:
    read = (await worker.get("/openapi.json")).json
    operation = read["paths"]["/tables/{table}:batch-put"]["post"]
    line = {**operation["requestBody"]["content"][NDJSON]["schema"], "components": read["components"]}
    lines: list[dict[str, object]] = [{"key": "a", "value": None}, {"key": "b", "delete": True}, {"key": 5, "value": 1}]
    for one in lines:
        jsonschema.Draft202012Validator(line).validate(one)
    for wrong in ({"key": "a"}, {"key": "a", "value": 1, "delete": True}, {"key": "a", "delete": False}):
        assert not jsonschema.Draft202012Validator(line).is_valid(wrong)
    reply = await post(worker, b"\n".join(msgspec.json.encode(one) for one in lines), query="?pretty")
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**answer, "components": read["components"]}).validate(reply.json)
    assert codes(reply.json["results"]) == ["", "", "invalid_key"]
