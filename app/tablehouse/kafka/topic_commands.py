"""The commands that create a group's topics and correct their settings, for an operator to run."""

from collections.abc import Mapping
from typing import NamedTuple

from tablehouse.catalog.spec import Catalog
from tablehouse.kafka.client import Connection
from tablehouse.kafka.topic_admin import Described, TopicAdmin
from tablehouse.kafka.topic_plan import Wanted
from tablehouse.kafka.topics import Replication, Survey, faults, probes, survey
from tablehouse.tasks.definitions import changelog_topic


class Commands(NamedTuple):
    """Commands, one per line, and a remark about each topic."""

    lines: list[str]
    remarks: list[str]


async def commands_for(
    connection: Connection, group: str, catalog: Catalog, dead_letter_topic: str, replication: Replication
) -> Commands:
    """Return the commands to run before the start of a worker that may not create topics.

    A missing source only gets a remark: the number of partitions that it needs is not known here. Raises TopicError and
    aiokafka's KafkaError.
    """
    found = Commands([], [])
    async with TopicAdmin(connection) as admin:
        surveyed = await survey(admin, group, catalog, dead_letter_topic, replication)
        internal = {wanted.name: wanted for wanted in probes(group, await admin.cluster(), replication)}
        wanted = {**surveyed.wanted, **internal}
        existing = {**surveyed.existing, **await admin.describe(internal)}
        settings = await admin.settings(existing)
    found.remarks.extend(_remark_on_missing(topic, group, catalog, surveyed) for topic in surveyed.missing_sources)
    for name, topic in wanted.items():
        if name in existing:
            _add_existing(found, connection, topic, existing[name], settings[name].values)
        else:
            found.lines.append(topic.create_command(connection))
            found.remarks.append(f"{name}: missing")
    return found


def _remark_on_missing(topic: str, group: str, catalog: Catalog, surveyed: Survey) -> str:
    """Return a remark about a missing source."""
    tables = catalog.tables_of(topic)
    names = ", ".join(table.name for table in tables)
    if topic in surveyed.sources:
        return (
            f"{topic}: missing, the source of {names}, which workers serve from changelogs of "
            f"{surveyed.sources[topic].partitions} partitions. If it was deleted, create it again with as many "
            "partitions as its producers need, which is not known here, and give the tables new versions"
        )
    changelogs = ", ".join(changelog_topic(group, table) for table in tables)
    return (
        f"{topic}: missing, the source of {names}. Create it with as many partitions as its producers need, which is "
        f"not known here, or correct `source.topic`; then run this again, for {changelogs} with as many partitions"
    )


def _add_existing(
    found: Commands, connection: Connection, topic: Wanted, described: Described, values: Mapping[str, str]
) -> None:
    broken = faults(topic, described, values)
    if broken:
        found.lines.append(topic.alter_command(connection, broken))
        what = "; ".join(rule.fault(values.get(rule.setting)) for rule in broken)
        found.remarks.append(f"{topic.name}: {what}")
    elif described.replicas < topic.replicas:
        found.remarks.append(
            f"{topic.name}: has {described.replicas} replicas and should have {topic.replicas}: "
            "add some with kafka-reassign-partitions.sh"
        )
    else:
        found.remarks.append(f"{topic.name}: as required")
