"""Requirements for the topics that a worker creates, as values and as commands for an operator.

Clusters have policies: explicitly setting a default may be refused, and sizes are capped. So a topic has several ways
to create it, the best first, and an existing topic is only checked against its rules.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tablehouse.kafka.client import Connection
from tablehouse.tasks.retention import DELETE_RETENTION_MS, MIN_COMPACTION_LAG_MS

#: A changelog batch has the source's rows, their headers and a position record, so its limit is the source's plus this.
BATCH_OVERHEAD = 64 * 1024

#: A dead letter has its record and at most this many bytes of headers.
LETTER_OVERHEAD = BATCH_OVERHEAD

#: A record of a compressed batch can be larger than its topic's max.message.bytes, so a dead-letter topic accepts this
#: many times as much, within what brokers accept in one request (socket.request.max.bytes, 100 MiB by default).
LETTER_ROOM, MAX_LETTER_BYTES = 8, 64 * 1024 * 1024

#: Retention of dead letters in milliseconds, unless the topic is altered: 30 days.
LETTER_RETENTION_MS = 30 * 86_400_000

#: Retention of internal topics in milliseconds: one hour.
_INTERNAL_RETENTION_MS = 3_600_000

#: More replicas than this are only created if the source, the cluster's default or the setting has more.
MAX_AUTOMATIC_REPLICAS = 3

#: The name for changelogs in messages.
CHANGELOG = "changelog"

_SIZE, _INSYNC, _UNCLEAN = "max.message.bytes", "min.insync.replicas", "unclean.leader.election.enable"
_MAX_LAG = "max.compaction.lag.ms"


@dataclass(frozen=True, slots=True)
class Rule:
    """The required value of a topic setting, or its minimum.

    A number between `floor` and `value` is tolerated.
    """

    setting: str
    value: str
    at_least: bool = False
    floor: int | None = None

    def holds(self, found: str | None) -> bool:
        """Return whether a value fulfils the rule; None is a value that the cluster does not show."""
        if found is None:
            return self.setting == _UNCLEAN
        if not self.at_least:
            return found == self.value
        return int(found) >= (int(self.value) if self.floor is None else self.floor)

    def fault(self, found: str | None) -> str:
        """Return a message for a value that breaks the rule."""
        return f"{self.setting} is {found} and must be {'at least ' if self.at_least else ''}{self.value}"

    def is_given(self, defaults: Mapping[str, str]) -> bool:
        """Return whether the cluster's own default fulfils the rule."""
        found = defaults.get(self.setting)
        if found is None:
            # If the cluster does not show it, assume Kafka's default, which hosted clusters refuse to have set
            # explicitly.
            return self.setting == _UNCLEAN
        return int(found) >= int(self.value) if self.at_least else found == self.value


@dataclass(frozen=True, slots=True)
class Wanted:
    """A required topic.

    `title` is its name in messages, `rules` are checked against an existing topic, and `ways` are the settings to
    create it with: each is tried if a policy refuses the previous one.
    """

    title: str
    name: str
    partitions: int
    replicas: int
    rules: tuple[Rule, ...]
    ways: tuple[Mapping[str, str], ...]

    def create_command(self, connection: Connection, way: int = 0) -> str:
        """Return the command that creates the topic."""
        settings = [f"--config={name}={value}" for name, value in self.ways[way].items()]
        return _command(
            connection,
            "kafka-topics.sh",
            ["--create", "--if-not-exists", "--topic", self.name, "--partitions", str(self.partitions)],
            ["--replication-factor", str(self.replicas), *settings],
        )

    def alter_command(self, connection: Connection, rules: tuple[Rule, ...]) -> str:
        """Return the command that changes an existing topic to fulfil these rules."""
        settings = ",".join(f"{rule.setting}={rule.value}" for rule in rules)
        return _command(
            connection,
            "kafka-configs.sh",
            ["--alter", "--entity-type", "topics", "--entity-name", self.name, "--add-config", settings],
        )


def _command(connection: Connection, tool: str, *arguments: list[str]) -> str:
    words = [tool, "--bootstrap-server", connection.bootstrap_servers]
    if connection.security.protocol != "PLAINTEXT":
        words += ["--command-config", "client.properties"]
    return shlex.join([*words, *(word for some in arguments for word in some)])


def insync_of(replicas: int) -> int:
    """Return the number of replicas that must have a row before it is acknowledged: one may always be unavailable."""
    return min(2, max(1, replicas - 1))


def changelog(name: str, partitions: int, replicas: int, source_limit: int, defaults: Mapping[str, str]) -> Wanted:
    """Return the changelog of a source that accepts batches of `source_limit` bytes.

    The changelog protocol depends on each of its rules (tasks/DESIGN.md). Rows that are too large for it become dead
    letters, so a limit as low as the source's is enough.
    """
    rules = [
        Rule("cleanup.policy", "compact"),
        Rule("message.timestamp.type", "LogAppendTime"),
        Rule(_UNCLEAN, "false"),
        Rule("min.compaction.lag.ms", str(MIN_COMPACTION_LAG_MS), at_least=True),
        Rule("delete.retention.ms", str(DELETE_RETENTION_MS), at_least=True),
    ]
    created_with = list(rules)
    if int(defaults.get(_MAX_LAG, MIN_COMPACTION_LAG_MS)) < MIN_COMPACTION_LAG_MS:
        # Kafka refuses to create a topic whose minimum lag exceeds the maximum, which is the cluster's unless it is
        # set.
        created_with.append(Rule(_MAX_LAG, str(MIN_COMPACTION_LAG_MS), at_least=True))
    size = Rule(_SIZE, str(source_limit + BATCH_OVERHEAD), at_least=True, floor=source_limit)
    ways = _ways(created_with, replicas, (source_limit + BATCH_OVERHEAD, source_limit), defaults)
    return Wanted(CHANGELOG, name, partitions, replicas, (*rules, size), tuple(ways))


def dead_letters(name: str, replicas: int, largest: int, defaults: Mapping[str, str]) -> Wanted:
    """Return the dead-letter topic of sources that accept batches of at most `largest` bytes."""
    room, least = min(LETTER_ROOM * largest, MAX_LETTER_BYTES), largest + LETTER_OVERHEAD
    rules = [Rule("cleanup.policy", "delete")]
    size = Rule(_SIZE, str(least), at_least=True, floor=largest)
    kept = [*rules, Rule("retention.ms", str(LETTER_RETENTION_MS), at_least=True)]
    ways = _ways(kept, replicas, (max(room, least), least, largest), defaults)
    return Wanted("dead-letter topic", name, 1, replicas, (*rules, size), tuple(ways))


def skips(name: str, replicas: int, defaults: Mapping[str, str]) -> Wanted:
    """Return the topic of decisions to skip offsets, one small record each, which are kept forever."""
    rules = [Rule("cleanup.policy", "compact")]
    return Wanted("skip topic", name, 1, replicas, tuple(rules), tuple(_ways(rules, replicas, (), defaults)))


def internal(name: str, replicas: int, rules: tuple[Rule, ...]) -> Wanted:
    """Return a topic of one partition with a retention of one hour.

    Its records do not have to be durable, so any min.insync.replicas is accepted, and writers use acks=1.
    """
    needed = {rule.setting: rule.value for rule in rules}
    kept = {"cleanup.policy": "delete", "retention.ms": str(_INTERNAL_RETENTION_MS)}
    return Wanted(
        "topic", name, 1, replicas, rules, tuple({tuple(way): way for way in (kept | needed, needed)}.values())
    )


def _ways(
    rules: list[Rule], replicas: int, sizes: tuple[int, ...], defaults: Mapping[str, str]
) -> Iterator[Mapping[str, str]]:
    """Yield the settings to create a topic with: first all that matter, then only those that differ from the default.

    `sizes` are maximum batch sizes in bytes, the best first; without any, the cluster's is used.
    """
    insync = Rule(_INSYNC, str(insync_of(replicas)))
    seen: list[Mapping[str, str]] = []
    for everything in (True, False):
        for limits in [[Rule(_SIZE, str(size), at_least=True)] for size in sizes] or [[]]:
            optional = [insync, *limits]
            wanted = [
                rule
                for rule in (*rules, *optional)
                if (everything and rule.setting != _UNCLEAN and rule not in optional) or not rule.is_given(defaults)
            ]
            way = {rule.setting: rule.value for rule in wanted}
            if way not in seen:
                seen.append(way)
                yield way
