"""PostgreSQL, Debezium and workers: whatever happens to the rows and to a worker, every answer is what SELECT says."""

import asyncio
import json
import random
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import yaml
from aiokafka import AIOKafkaConsumer, TopicPartition
from click.testing import CliRunner

from tablehouse.cli.main import main
from tablehouse.testing.kafka import EmbeddedKafka
from tests.cdc.conftest import PARTITIONS, SEED, Captured
from tests.support.changes import PLAIN, WITH_SCHEMA, Keys, rows_of, transactions
from tests.support.cluster import client
from tests.support.kafka import unique
from tests.support.polling import until
from tests.support.worker import MakeWorker, WorkerProcess, all_ready, tables

CHANGES = 10_000
FEW_CHANGES = 1_000
#: Changes that go to psql at once.
CHUNK = 1_000

_DEADLINE = 180.0
_AT_ONCE = 16


def entry(name: str, topic: str, key: str = "{format: json, field: id}") -> str:
    source = f"{{topic: {topic}, key: {key}, value: json, envelope: debezium}}"
    return f"  - name: {name}\n    source: {source}\n"


async def differences(worker: WorkerProcess, table: str, expected: Mapping[str, Any], gone: list[str]) -> list[str]:
    """Return how answers differ from these rows, by the JSON of their keys, and from 404 for the keys that are gone."""
    found: list[str] = []
    targets = iter([*expected.items(), *((key, None) for key in gone)])
    async with client() as asking:

        async def ask_all() -> None:
            for key, row in targets:
                answer = await asking.get(f"{worker.url}/tables/{table}/{quote(key, safe='')}")
                seen = answer.json if answer.status == 200 else answer.status
                if seen != (404 if row is None else row):
                    found.append(f"{table} {key}: {_difference(seen, row)}")

        await asyncio.gather(*(ask_all() for _ in range(_AT_ONCE)))
    return found


def _difference(seen: Any, row: Any) -> str:
    if isinstance(seen, dict) and isinstance(row, dict):
        names = [name for name in {**row, **seen} if row.get(name, ...) != seen.get(name, ...)]
        seen, row = ({name: one.get(name, ...) for name in names} for one in (seen, row))
    return f"{seen}, and SELECT says {row}"


async def same(worker: WorkerProcess, table: str, expected: Mapping[str, Any], gone: list[str]) -> None:
    """Wait until a worker answers with exactly these rows."""

    async def look() -> bool:
        found = await differences(worker, table, expected, gone)
        assert not found, f"{len(found)} of {len(expected) + len(gone)} differ, such as {found[:3]}"
        return True

    await until(look, f"{table} is what PostgreSQL has", _DEADLINE)


def texts(keys: Keys, members: tuple[str, ...] = ()) -> list[str]:
    """Return the JSON of the keys without a row, an object where they have several members."""
    gone = [dict(zip(members, key, strict=True)) if members else key for key in keys.gone]
    return [json.dumps(key, ensure_ascii=False, separators=(",", ":")) for key in gone]


async def no_row(worker: WorkerProcess) -> float:
    """Return how many records became no row."""
    return await worker.metric("tablehouse_records_skipped_total") + await worker.metric(
        "tablehouse_dead_letters_total"
    )


@asynccontextmanager
async def two_workers(
    make_worker: MakeWorker, kafka: EmbeddedKafka, *entries: str
) -> AsyncIterator[tuple[WorkerProcess, WorkerProcess]]:
    group = unique("cdc")
    first, second = (make_worker(kafka.bootstrap_servers, tables(*entries), group=group) for _ in range(2))
    with first, second:
        await all_ready(first, second)
        yield first, second


async def test_a_table_is_what_select_says_after_10000_changes_a_killed_worker_and_a_killed_debezium(
    captured: Captured, kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    chance, customers, stock = random.Random(SEED), captured.customers, captured.stock
    pair = "{format: json, fields: [warehouse, article]}"
    entries = [
        entry("customers", f"{captured.plain}.public.customers"),
        entry("stock", f"{captured.plain}.public.stock", pair),
    ]
    async with two_workers(make_worker, kafka, *entries) as (killed, other):
        done = 0
        chunk: list[str] = []
        for count, transaction in transactions({"customers": customers, "stock": stock}, CHANGES, chance):
            chunk.append(transaction)
            before, done = done, done + count
            if done // CHUNK > before // CHUNK or done == CHANGES:
                await asyncio.to_thread(captured.postgres.run, "\n".join(chunk))
                chunk = []
                if done // CHUNK == 4:
                    killed.kill()
                if done // CHUNK == 5:
                    captured.debezium.kill()
                    await asyncio.to_thread(captured.debezium.start)
                if done // CHUNK == 7:
                    killed.start()
        key = "json_build_object('warehouse', warehouse, 'article', article)"
        stocked = {"warehouse": "warehouse", "article": "article", "quantity": "quantity"}
        expected = rows_of(captured.postgres, "customers", "id", PLAIN)
        expected_stock = rows_of(captured.postgres, "stock", key, stocked)
        assert len(expected) == len(customers.keys.live)
        assert len(expected_stock) == len(stock.keys.live)
        await killed.wait_ready()
        for worker in (other, killed):
            await same(worker, "customers", expected, texts(customers.keys))
            await same(worker, "stock", expected_stock, texts(stock.keys, ("warehouse", "article")))
            assert await no_row(worker) == 0


async def test_events_with_schemas_show_dates_and_decimals_as_people_write_them(
    captured: Captured, kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    chance, accounts = random.Random(SEED), captured.accounts
    flattened = (
        f"{{topic: {captured.flattened}.public.accounts, key: {{format: json, field: id}}, value: json_connect}}"
    )
    entries = [
        entry("accounts", f"{captured.with_schemas}.public.accounts", "{format: json_connect, field: id}"),
        f"  - name: flattened\n    source: {flattened}\n",
    ]
    async with two_workers(make_worker, kafka, *entries) as (first, _):
        made = [transaction for _, transaction in transactions({"accounts": accounts}, FEW_CHANGES, chance)]
        await asyncio.to_thread(captured.postgres.run, "\n".join(made))
        expected = rows_of(captured.postgres, "accounts", "id", WITH_SCHEMA)
        await same(first, "accounts", expected, texts(accounts.keys))
        await same(first, "flattened", expected, texts(accounts.keys))
        assert await no_row(first) == 0


async def test_an_update_without_its_large_value_changes_no_row_and_with_replica_identity_full_it_does(
    captured: Captured, kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    columns = {"id": "id", "title": "title", "body": "body"}
    topic = f"{captured.plain}.public.articles"
    titles = entry("titles", topic) + "    columns: [id, title]\n"
    async with two_workers(make_worker, kafka, entry("articles", topic), titles) as workers:
        asked = workers[0]
        before = rows_of(captured.postgres, "articles", "id", columns)
        await same(asked, "articles", before, [])
        captured.postgres.run("UPDATE articles SET title = 'second'")
        await same(asked, "titles", rows_of(captured.postgres, "articles", "id", {"id": "id", "title": "title"}), [])

        async def refused() -> bool:
            return sum([await no_row(worker) for worker in workers]) == 1

        await until(refused, "the record that is no row is counted")
        assert await differences(asked, "articles", before, []) == []
        captured.postgres.run("ALTER TABLE articles REPLICA IDENTITY FULL; UPDATE articles SET title = 'third'")
        await same(asked, "articles", rows_of(captured.postgres, "articles", "id", columns), ["2"])


async def proposed(kafka: EmbeddedKafka, topic: str) -> tuple[str, str]:
    """Return the name of the table that `tablehouse init` writes for a topic, and its entry."""
    words = ["init", topic, "--bootstrap-servers", kafka.bootstrap_servers]
    found = await asyncio.to_thread(CliRunner().invoke, main, words)
    assert found.exit_code == 0, found.output
    [table] = yaml.safe_load(found.stdout)["tables"]
    return table["name"], yaml.safe_dump([table])


async def filled(kafka: EmbeddedKafka, topic: str, count: int) -> None:
    """Wait until a topic has that many records."""
    places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers) as consumer:

        async def there() -> bool:
            found = sum((await consumer.end_offsets(places)).values())
            assert found >= count, f"it has {found} of {count} records"
            return True

        await until(there, f"Debezium has filled {topic}", _DEADLINE)


async def test_decimals_in_keys_are_in_urls_as_select_says(
    captured: Captured, kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    amounts = ["12.30", "0", "-0.005", "1e30", "99999999999999999999999999.5", *map(str, range(1, 20))]
    fees = [("12.30", "a"), ("-0.05", "b/ü"), ("99999999.99", "a"), *((str(number), "c") for number in range(20))]
    rows = [f"INSERT INTO amounts VALUES ({amount}, 'note {amount}');" for amount in amounts]
    rows += [f"INSERT INTO fees VALUES ({fee}, '{zone}', 'note');" for fee, zone in fees]
    captured.postgres.run("".join(rows))
    found = []
    for table, count in (("amounts", len(amounts)), ("fees", len(fees))):
        topic = f"{captured.with_schemas}.public.{table}"
        await filled(kafka, topic, count)
        found.append(await proposed(kafka, topic))
    (amounts_table, _), (fees_table, _) = found
    async with two_workers(make_worker, kafka, *(definition for _, definition in found)) as workers:
        captured.postgres.run(
            "UPDATE amounts SET note = 'changed' WHERE amount = 12.3; DELETE FROM amounts WHERE amount = 7;"
            "UPDATE amounts SET amount = 8.50 WHERE amount = 8; UPDATE fees SET note = 'changed' WHERE zone = 'a';"
            "DELETE FROM fees WHERE fee = 5;"
        )
        # Debezium takes a number without a scale for the same whatever zeros are at its end.
        number, fee = "trim_scale(amount)::text", {"fee": "fee::text", "zone": "zone"}
        expected = rows_of(captured.postgres, "amounts", f"to_json({number})", {"amount": number, "note": "note"})
        key = "json_build_object('fee', fee::text, 'zone', zone)"
        expected_fees = rows_of(captured.postgres, "fees", key, fee | {"note": "note"})
        for worker in workers:
            await same(worker, amounts_table, expected, ['"7"', '"8"', '"12.30"'])
            await same(worker, fees_table, expected_fees, ['{"fee":"5.00","zone":"c"}'])
        assert sum([await no_row(worker) for worker in workers]) == 0


async def test_tables_that_are_routed_into_one_topic_have_the_name_of_theirs_in_the_key(
    captured: Captured, kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    rows = [f"INSERT INTO orders_{table} VALUES ({n}, 'order {n}');" for table in (1, 2) for n in range(9)]
    captured.postgres.run("".join(rows))
    topic = f"{captured.plain}.public.orders"
    await filled(kafka, topic, 18)
    name, definition = await proposed(kafka, topic)
    async with two_workers(make_worker, kafka, definition) as workers:
        captured.postgres.run("UPDATE orders_1 SET note = 'changed' WHERE id = 3; DELETE FROM orders_2 WHERE id = 3;")
        expected: dict[str, Any] = {}
        identifier = "__dbz__physicalTableIdentifier"
        for table in (1, 2):
            of_table = f"json_build_object('id', id, '{identifier}', '{captured.plain}.public.orders_{table}')"
            expected |= rows_of(captured.postgres, f"orders_{table}", of_table, {"id": "id", "note": "note"})
        gone = json.dumps({"id": 3, identifier: f"{captured.plain}.public.orders_2"})
        for worker in workers:
            await same(worker, name, expected, [gone])
        assert sum([await no_row(worker) for worker in workers]) == 0


async def test_the_outbox_shows_the_latest_event_of_each_aggregate(
    captured: Captured, kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    columns = "{id: id, state: state, event: $headers.eventType, event_id: $headers.id}"
    entries = [
        f"  - name: {name}\n    source: {{topic: {topic}.order, key: string, value: json, envelope: outbox}}\n{more}"
        for name, topic, more in (
            ("orders", captured.outbox[0], f"    columns: {columns}\n"),
            ("expanded", captured.outbox[1], f"    columns: {columns}\n"),
            ("payloads", captured.outbox[0], ""),
        )
    ]
    events = [
        ("1001", "OrderPlaced", '{"id": 1001, "state": "placed", "total": 59.90}'),
        ("zwei", "OrderPlaced", '{"id": 2, "state": "plac\u00e9"}'),
        ("gone", "OrderPlaced", '{"id": 3, "state": "placed"}'),
        ("1001", "OrderShipped", '{"id": 1001, "state": "shipped", "total": 59.90}'),
        ("gone", "OrderDeleted", None),
    ]
    async with two_workers(make_worker, kafka, *entries) as (asked, _):
        for number, (aggregate, kind, payload) in enumerate(events):
            given = "NULL" if payload is None else f"'{payload}'"
            # As services do it: the row of an outbox is deleted at once, which is no event.
            captured.postgres.run(
                f"INSERT INTO outbox VALUES ('{uuid.UUID(int=number)}', 'order', '{aggregate}', '{kind}', {given});"
                "DELETE FROM outbox;"
            )
        shipped = {"id": 1001, "state": "shipped"}
        placed = {"id": 2, "state": "plac\u00e9"}
        rows = {
            "1001": shipped | {"event": "OrderShipped", "event_id": str(uuid.UUID(int=3))},
            "zwei": placed | {"event": "OrderPlaced", "event_id": str(uuid.UUID(int=1))},
        }
        await same(asked, "orders", rows, ["gone", "never"])
        await same(asked, "expanded", rows, ["gone", "never"])
        await same(asked, "payloads", {"1001": shipped | {"total": 59.9}, "zwei": placed}, ["gone", "never"])
        assert await no_row(asked) == 0
