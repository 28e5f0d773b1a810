"""`tablehouse dead-letters` on a real broker: what it lists and shows, and what it puts back."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tablehouse.cli import main as cli
from tablehouse.kafka.client import Connection
from tablehouse.kafka.dead_letters import KafkaDeadLetters
from tablehouse.kafka.topic_plan import dead_letters
from tablehouse.kafka.topics import DeadLetterTopic
from tablehouse.model import TopicPartition
from tablehouse.tasks.dead_letters import DeadLetter
from tablehouse.tasks.ingest import BadRecord
from tablehouse.testing.kafka import EmbeddedKafka
from tablehouse.testing.simulated.broker import Record
from tests.support.dead_letters import letters
from tests.support.engine import running_engine
from tests.support.kafka import BROKERS_CLOCK, create_topic, produce, unique
from tests.support.topics import alter_topic
from tests.support.worker import table, tables


class Scene:
    """A source of two partitions, a group, and its dead letters."""

    def __init__(self, kafka: EmbeddedKafka) -> None:
        self.bootstrap = kafka.bootstrap_servers
        self.source, self.group = unique("source"), unique("group")
        self.topic = f"{self.group}-dead-letters"

    async def create(self) -> None:
        """Create both topics."""
        await create_topic(self.bootstrap, self.source, 2)
        await create_topic(self.bootstrap, self.topic, 1, {"max.message.bytes": "8000000"})

    async def write(self, *bad: tuple[str, int, BadRecord]) -> None:
        """Write letters of tables and partitions."""
        writer = KafkaDeadLetters(
            Connection(self.bootstrap, "w"),
            DeadLetterTopic(dead_letters(self.topic, 1, 1_000_000, {}), 1, 8_000_000),
            self.group,
            "w1",
            BROKERS_CLOCK,
        )
        await writer.start()
        try:
            for name, partition, record in bad:
                await writer.send([DeadLetter(name, TopicPartition(self.source, partition), record)])
        finally:
            await writer.stop()

    async def run(self, *arguments: str) -> Result:
        """Run a command."""
        given = [*arguments, "--bootstrap-servers", self.bootstrap, "--group", self.group, "--timeout", "20"]
        return await asyncio.to_thread(CliRunner().invoke, cli.main, ["dead-letters", *given])


def bad(
    offset: int, key: bytes | None, value: bytes | None, reason: str = "undecodable_value", *headers: tuple[str, bytes]
) -> BadRecord:
    return BadRecord(Record(offset, 1000, key, value, headers), reason, f"detail of {offset}")


@pytest.fixture
async def scene(kafka: EmbeddedKafka) -> Scene:
    scene = Scene(kafka)
    await scene.create()
    return scene


async def test_letters_are_listed_by_table_reason_time_and_number(scene: Scene) -> None:
    await scene.write(
        ("t", 0, bad(1, b"a", b"!")), ("t", 0, bad(2, None, b"v", "null_key")), ("u", 1, bad(3, b"b", b"!"))
    )
    listed = await scene.run("list")
    assert listed.exit_code == 0, listed.output
    lines = [line.split("  ") for line in listed.stdout.splitlines()]
    assert [[line[0], *line[2:]] for line in lines] == [
        ["0:0", "t", "undecodable_value", f"{scene.source}:0:1", "detail of 1"],
        ["0:1", "t", "null_key", f"{scene.source}:0:2", "detail of 2"],
        ["0:2", "u", "undecodable_value", f"{scene.source}:1:3", "detail of 3"],
    ]
    assert listed.stderr == "3 of 3 dead letters\n"

    async def places(*options: str) -> list[str]:
        found = await scene.run("list", "--json", *options)
        assert found.exit_code == 0, found.output
        return [json.loads(line)["letter"] for line in found.stdout.splitlines()]

    assert await places("--table", "t") == ["0:0", "0:1"]
    assert await places("--table", "t", "--reason", "null_key") == ["0:1"]
    assert await places("--since", "1h", "--limit", "2") == ["0:1", "0:2"]
    assert await places("--since", "2999-01-01") == []
    assert "must be a duration" in (await scene.run("list", "--since", "yesterday")).stderr


@pytest.mark.parametrize("command", ["list", "replay"])
async def test_a_table_or_a_reason_that_there_is_not_is_refused_naming_those_there_are(
    scene: Scene, command: str
) -> None:
    await create_topic(scene.bootstrap, f"{scene.group}-quiet-v3-changelog", 1)
    await scene.write(("t", 0, bad(1, b"a", b"!")), ("u", 0, bad(2, None, b"v", "null_key")))
    for options, why in (
        (("--table", "tt"), "there is no table tt; those of the group and of the letters: quiet, t, u"),
        (("--reason", "undecodable"), "'undecodable' is not one of 'null_key', 'empty_key'"),
    ):
        refused = await scene.run(command, *options)
        assert (refused.exit_code, refused.stdout) == (2, "")
        # Lines are broken where they are too long.
        assert why in " ".join(refused.stderr.split()), refused.stderr
    for options in (("--table", "quiet"), ("--table", "*"), ("--reason", "oversized")):
        found = await scene.run(command, *options)
        assert (found.exit_code, found.stdout) == (0, "" if command == "list" else "0 records replayed\n")


async def test_records_that_are_no_dead_letters_are_counted_apart(scene: Scene) -> None:
    await produce(scene.bootstrap, scene.topic, [(b"a", b"b", 0), (b"a", b"c", 0)])
    await scene.write(("t", 0, bad(1, b"a", b"!")))
    listed = await scene.run("list")
    assert listed.stdout.count("\n") == 1
    assert f"2 records of topic {scene.topic} are not dead letters: check dead_letter_topic" in listed.stderr


async def test_a_letter_is_shown_as_text_and_else_in_hexadecimal(scene: Scene) -> None:
    await scene.write(
        ("t", 0, bad(1, b"\xff\x00", b'{"n":', "undecodable_key", ("trace", b"abc"), ("raw", b"\x80"))),
        ("t", 0, bad(2, None, b"\x1b[31m", "null_key")),
    )
    shown = (await scene.run("show", "0:0")).stdout
    for line in (
        "letter:     0:0",
        "table:      t",
        "reason:     undecodable_key",
        f"record:     {scene.source}:0:1",
        "header:     trace = abc",
        "header:     raw = 0x80",
        "key:        0xff00",
        'value:      {"n":',
    ):
        assert line in shown.splitlines(), shown
    assert "key:        null\nvalue:      0x1b5b33316d" in (await scene.run("show", "0:1")).stdout
    document = json.loads((await scene.run("show", "0:0", "--json")).stdout)
    assert (document["key"], document["value"]) == ({"hex": "ff00"}, {"text": '{"n":'})
    assert document["headers"] == [["trace", {"text": "abc"}], ["raw", {"hex": "80"}]]
    for place, why in (("0:2", "there is no dead letter at offset 2"), ("4:0", "has no partition 4"), ("x", "0:17")):
        refused = await scene.run("show", place)
        assert refused.exit_code == 2
        assert why in refused.stderr


async def test_a_topic_that_is_not_there_is_named_with_what_would_be_right(kafka: EmbeddedKafka) -> None:
    scene = Scene(kafka)
    refused = await scene.run("list")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"there is no topic {scene.topic}; check the settings group and dead_letter_topic" in refused.stderr


async def test_a_broker_that_is_not_there_is_named() -> None:
    given = ["dead-letters", "list", "--bootstrap-servers", "127.0.0.1:9"]
    refused = await asyncio.to_thread(CliRunner().invoke, cli.main, given)
    assert refused.exit_code == 1
    assert "127.0.0.1:9" in refused.stderr


@pytest.mark.parametrize(
    "selection", [[], ["--all", "--table", "t"], ["0:0", "--all"], ["0:0", "--reason", "oversized"]]
)
async def test_a_replay_without_one_clear_selection_is_refused(scene: Scene, selection: list[str]) -> None:
    refused = await scene.run("replay", *selection)
    assert refused.exit_code == 2
    assert "select letters" in refused.stderr


async def test_a_replay_puts_records_back_as_they_were_but_none_whose_key_has_a_newer_one(scene: Scene) -> None:
    await produce(scene.bootstrap, scene.source, [(b"a", b"!", 0), (b"b", b"!", 0), (b"b", b"{}", 0), (b"c", b"!", 1)])
    await scene.write(
        ("t", 0, bad(0, b"a", b"!", "undecodable_value", ("own", b"\xff"))),
        ("u", 0, bad(0, b"a", b"!", "undecodable_value", ("own", b"\xff"))),
        ("t", 0, bad(1, b"b", b"!")),
        ("t", 1, bad(0, b"c", b"!")),
        ("t", 1, bad(9, None, None, "null_key")),
    )
    dry = await scene.run("replay", "--all", "--dry-run")
    assert dry.stdout.splitlines() == [
        f"{scene.source}:0:0",
        f"{scene.source}:1:0",
        f"{scene.source}:1:9",
        "3 records to replay",
    ]
    assert await letters(scene.bootstrap, scene.source, 1) == (await letters(scene.bootstrap, scene.source, 1))[:1]

    done = await scene.run("replay", "--all")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "3 records replayed"
    assert f"{scene.source}:0:1 left alone: its key has a newer record" in done.stderr
    [*_, back] = await letters(scene.bootstrap, scene.source, 0)
    assert (back.offset, back.key, back.value, list(back.headers)) == (3, b"a", b"!", [("own", b"\xff")])
    [_, first, second] = await letters(scene.bootstrap, scene.source, 1)
    assert (first.key, first.value, second.key, second.value) == (b"c", b"!", None, None)

    # What was replayed is the newest itself.
    again = await scene.run("replay", "0:0", "0:2")
    assert again.stdout == "0 records replayed\n"
    forced = await scene.run("replay", "0:2", "--force")
    assert forced.stdout.splitlines() == [f"{scene.source}:0:1 as offset 4", "1 record replayed"]


async def test_a_record_that_cannot_be_put_back_whole_is_left_alone_and_the_others_are_not(scene: Scene) -> None:
    await scene.write(
        ("t", 0, bad(0, b"a", b"v" * 9_000_000)), ("t", 0, bad(1, b"b", b"v" * 2_000_000)), ("t", 0, bad(2, b"c", b"v"))
    )
    done = await scene.run("replay", "--table", "t")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [f"{scene.source}:0:2 as offset 0", "1 record replayed"]
    assert f"{scene.source}:0:0 left alone: it was too large for the dead-letter topic" in done.stderr
    assert f"{scene.source}:0:1 left alone: the source topic does not accept it" in done.stderr


async def test_a_record_that_the_source_topic_refuses_is_left_alone_and_the_others_are_not(
    kafka: EmbeddedKafka, scene: Scene
) -> None:
    await alter_topic(kafka, scene.source, {"cleanup.policy": "compact"})
    await scene.write(("t", 0, bad(0, None, b"v", "null_key")), ("t", 0, bad(1, b"a", b"v")))
    done = await scene.run("replay", "--all")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [f"{scene.source}:0:1 as offset 0", "1 record replayed"]
    # A compacted topic takes no record without a key.
    assert f"{scene.source}:0:0 left alone: the source topic does not accept it, the broker refused" in done.stderr
    assert "InvalidRecordError" in done.stderr


async def test_once_the_definition_is_right_replayed_records_become_rows(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    scene = Scene(kafka)
    await create_topic(scene.bootstrap, scene.source, 1)
    await produce(scene.bootstrap, scene.source, [(b"a", b"not json", 0), (b"b", b"{}", 0)])
    async with running_engine(kafka, tmp_path, tables(table("t", scene.source)), scene.group) as running:
        await running.wait_position("t", 0, 1)
        await running.wait_active(1)
        assert running.read("t", b"a").row is None
    # The table's first definition has passed the record; a second one reads texts, and is told of it again.
    definition = tables(table("t", scene.source, value="string") + "    version: 2\n")
    async with running_engine(kafka, tmp_path, definition, scene.group) as running:
        assert (await scene.run("replay", "--reason", "undecodable_value")).stdout.splitlines()[
            -1
        ] == "1 record replayed"
        await running.wait_position("t", 0, 2)
        row = running.read("t", b"a").row
        assert row is not None
        assert (row.payload, row.offset) == (b"not json", 2)
