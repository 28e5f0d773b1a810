"""`tablehouse topics`, whose commands are read as Kafka's own tools read them."""

import argparse
import asyncio
import shlex
from pathlib import Path

from click.testing import CliRunner, Result

from tablehouse.cli.main import main
from tablehouse.kafka import topics
from tablehouse.kafka.client import Connection
from tablehouse.testing.kafka import EmbeddedKafka
from tests.support.kafka import create_topic, delete_topic, unique
from tests.support.polling import until
from tests.support.topics import GROUP_TOPICS, alter_topic, catalog, partitions_of, settings_of, topics_of
from tests.support.worker import table, tables


class Scene:
    """A source, a group and the command line over them."""

    def __init__(self, kafka: EmbeddedKafka, folder: Path) -> None:
        self.kafka, self.topic, self.group = kafka, unique("source"), unique("group")
        self.file = folder / "tables.yaml"
        self.file.write_text(tables(table("planes", self.topic)), "utf-8")

    async def run(self) -> Result:
        """Run the command."""
        flags = {"bootstrap-servers": self.kafka.bootstrap_servers, "tables": str(self.file), "group": self.group}
        arguments = [word for name, value in flags.items() for word in (f"--{name}", value)]
        return await asyncio.to_thread(CliRunner().invoke, main, ["topics", *arguments])

    async def obey(self, commands: str) -> None:
        """Do what the commands say."""
        parser = argparse.ArgumentParser()
        for flag in ("--create", "--if-not-exists", "--alter"):
            parser.add_argument(flag, action="store_true")
        for flag in ("--bootstrap-server", "--topic", "--entity-type", "--entity-name", "--add-config"):
            parser.add_argument(flag)
        for flag in ("--partitions", "--replication-factor"):
            parser.add_argument(flag, type=int)
        parser.add_argument("--config", action="append", default=[])
        for tool, *arguments in map(shlex.split, commands.splitlines()):
            given = parser.parse_args(arguments)
            assert given.bootstrap_server == self.kafka.bootstrap_servers
            if tool == "kafka-topics.sh":
                settings = dict(setting.split("=", 1) for setting in given.config)
                await create_topic(
                    self.kafka.bootstrap_servers, given.topic, given.partitions, settings, given.replication_factor
                )
            else:
                assert (tool, given.entity_type) == ("kafka-configs.sh", "topics")
                found = await settings_of(self.kafka, given.entity_name)
                altered = dict(setting.split("=", 1) for setting in given.add_config.split(","))
                await alter_topic(self.kafka, given.entity_name, {"cleanup.policy": found["cleanup.policy"], **altered})


async def test_the_commands_make_a_group_s_topics_as_a_worker_wants_them(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    scene = Scene(kafka, tmp_path)
    await create_topic(kafka.bootstrap_servers, scene.topic, 3)
    names = [f"{scene.group}-{name}" for name in ("planes-changelog", *GROUP_TOPICS)]

    first = await scene.run()
    assert (first.exit_code, first.stderr.splitlines()) == (0, [f"{name}: missing" for name in names])
    assert not set(names) & await topics_of(kafka)
    await scene.obey(first.stdout)

    second = await scene.run()
    assert (second.exit_code, second.stdout) == (0, "")
    assert second.stderr.splitlines() == [f"{name}: as required" for name in names]
    found = await topics.prepare(
        Connection(kafka.bootstrap_servers, "test"), scene.group, catalog(scene.topic), f"{scene.group}-dead-letters"
    )
    assert found.counts.shards == {scene.topic: 3}


async def test_the_commands_correct_topics_that_are_there(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    scene = Scene(kafka, tmp_path)
    await create_topic(kafka.bootstrap_servers, scene.topic, 1)
    await create_topic(kafka.bootstrap_servers, f"{scene.group}-clock-probe", 1)
    await create_topic(kafka.bootstrap_servers, f"{scene.group}-planes-changelog", 1, {"cleanup.policy": "compact"})

    first = await scene.run()
    assert (
        f"{scene.group}-planes-changelog: message.timestamp.type is CreateTime and must be LogAppendTime; "
        "min.compaction.lag.ms is 0 and must be at least 3600000" in first.stderr.splitlines()
    )
    await scene.obey(first.stdout)

    assert (await scene.run()).stdout == ""


async def test_a_missing_source_is_remarked_on_with_what_it_has_to_be_and_keeps_no_other_command_back(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    scene, other = Scene(kafka, tmp_path), unique("other")
    scene.file.write_text(tables(table("planes", scene.topic), table("engines", other)))

    # Without any source nothing is known of the sizes that dead letters may have.
    names = [f"{scene.group}-{name}" for name in GROUP_TOPICS if name != "dead-letters"]
    none = await scene.run()
    assert none.exit_code == 0
    assert none.stderr.splitlines() == [
        *(
            f"{topic}: missing, the source of {name}. Create it with as many partitions as its producers need, which "
            f"is not known here, or correct `source.topic`; then run this again, for {scene.group}-{name}-changelog "
            "with as many partitions"
            for topic, name in ((scene.topic, "planes"), (other, "engines"))
        ),
        *(f"{name}: missing" for name in names),
    ]

    await create_topic(kafka.bootstrap_servers, other, 3)
    first = await scene.run()
    assert [line for line in first.stderr.splitlines() if "as many partitions" in line] == [none.stderr.splitlines()[0]]
    await scene.obey(first.stdout)
    left = await scene.run()
    assert (left.exit_code, left.stdout) == (0, "")
    assert len(await partitions_of(kafka, f"{scene.group}-engines-changelog")) == 3
    assert not {scene.topic, f"{scene.group}-planes-changelog"} & await topics_of(kafka)


async def test_a_source_that_was_deleted_is_remarked_on_with_the_partitions_of_its_changelog(
    kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    scene = Scene(kafka, tmp_path)
    await create_topic(kafka.bootstrap_servers, scene.topic, 3)
    await scene.obey((await scene.run()).stdout)
    await delete_topic(kafka.bootstrap_servers, scene.topic)

    async def missing() -> Result:
        found = await scene.run()
        assert f"{scene.topic}: missing, the source of planes, which workers serve from changelogs of 3 partitions" in (
            found.stderr
        )
        return found

    found = await until(missing, "the topic is gone")
    assert (found.exit_code, found.stdout) == (0, "")
    assert "create it again with as many partitions as its producers need, which is not known here" in found.stderr
