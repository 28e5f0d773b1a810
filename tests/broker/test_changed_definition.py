"""A table whose definition has changed without a new version: the worker ends before it takes part in the group."""

import sys
from pathlib import Path

import pytest

import tablehouse.tasks.built_with as module
from tablehouse.tasks.identity import FingerprintChanged
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.engine import RunningEngine, new_source, running_engine
from tests.support.kafka import create_topic, produce, unique
from tests.support.worker import MakeWorker, make_worker, table, tables

__all__ = ["make_worker"]


async def test_a_worker_with_a_changed_table_ends_by_a_line_that_names_it_and_no_rebalance(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic, group = unique("source"), unique("group")
    await create_topic(kafka.bootstrap_servers, topic, 2)
    await produce(kafka.bootstrap_servers, topic, [(b"k%d" % number, b"{}", None) for number in range(10)])
    definition = tables(table("planes", topic))
    serving = make_worker(kafka.bootstrap_servers, definition, group=group)
    changed = make_worker(kafka.bootstrap_servers, tables(table("planes", topic, value="string")), group=group)
    serving.start()
    await serving.wait_active()
    _, before = await serving.document("/readyz")

    changed.start()

    assert await changed.wait_exit() == 2
    said = changed.log_text()
    assert "table planes: " in said
    assert "value was json and is now string" in said
    assert "crash" not in said
    _, after = await serving.document("/readyz")
    assert serving.generation_in(after) == serving.generation_in(before)
    await serving.wait_active()


async def test_a_change_that_is_found_by_a_member_of_the_group_ends_the_log_by_that_line_alone(
    kafka: EmbeddedKafka, make_worker: MakeWorker
) -> None:
    topic, group = unique("source"), unique("group")
    await create_topic(kafka.bootstrap_servers, topic, 1)
    before = make_worker(kafka.bootstrap_servers, tables(table("planes", topic)), group=group)
    changed = make_worker(kafka.bootstrap_servers, tables(table("planes", topic, value="string")), group=group)
    before.start()
    await before.wait_active()
    before.terminate()
    assert await before.wait_exit() == 0
    # As when the changelogs do not answer in the time that the look before joining has.
    unseen = (
        "import tablehouse.tasks.built_with as look; look.PATIENCE = 0; "
        "from tablehouse.cli.main import main; main(['worker'])"
    )
    changed.command = [sys.executable, "-c", unseen]

    changed.start()

    assert await changed.wait_exit() == 2
    said = changed.log_text()
    assert "assigned" in said
    last = said.splitlines()[-1]
    assert last.startswith("table planes: ")
    assert "value was json and is now string" in last
    assert said.count("value was json and is now string") == 1
    assert not any(word in said for word in ("Traceback", "rash", "NoneType"))


async def test_a_store_tells_it_where_the_changelog_s_claims_are_far_from_both_ends(
    kafka: EmbeddedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, group, definition = await new_source(kafka)
    await produce(kafka.bootstrap_servers, topic, [(b"k", b"{}", None)])
    async with running_engine(kafka, tmp_path, definition, group) as running:
        await running.wait_position("t", 0, 0)
    monkeypatch.setattr(module, "LOOKED_AT", 0)
    changed = RunningEngine(kafka, tmp_path, tables(table("t", topic, value="string")), group)

    with pytest.raises(FingerprintChanged, match="the store was built with another definition: value was json"):
        await changed.engine.start()
    await changed.engine.on_stop()
