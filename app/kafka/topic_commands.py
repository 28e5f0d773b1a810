"""The commands that create a group's topics and correct their settings, for the person who may do that."""

from collections.abc import Mapping
from typing import NamedTuple

from app.catalog.spec import Catalog
from app.kafka.client import Connection
from app.kafka.topic_admin import Described, TopicAdmin
from app.kafka.topic_plan import Wanted
from app.kafka.topics import Replication, faults, probes, survey


class Commands(NamedTuple):
    """Commands, a line each, and a remark about each topic."""

    lines: list[str]
    remarks: list[str]


async def commands_for(
    connection: Connection, group: str, catalog: Catalog, dead_letter_topic: str, replication: Replication
) -> Commands:
    """Return what is to be done before a worker starts that may create no topic.

    Raises TopicError for a source that is missing, and aiokafka's KafkaError.
    """
    found = Commands([], [])
    async with TopicAdmin(connection) as admin:
        surveyed = await survey(admin, group, catalog, dead_letter_topic, replication)
        internal = {wanted.name: wanted for wanted in probes(group, await admin.cluster(), replication)}
        wanted = {**surveyed.wanted, **internal}
        existing = {**surveyed.existing, **await admin.described(internal)}
        settings = await admin.settings(existing)
    for name, topic in wanted.items():
        if name in existing:
            _add_existing(found, connection, topic, existing[name], settings[name].values)
        else:
            found.lines.append(topic.create_command(connection))
            found.remarks.append(f"{name}: missing")
    return found


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
        found.remarks.append(f"{topic.name}: as it has to be")
