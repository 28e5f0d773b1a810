"""A table that is made from several topics."""

from dataclasses import dataclass

from tablehouse.catalog.spec import KeySpec, SourceSpec, TableSpec, ValueSpec


@dataclass(frozen=True, slots=True)
class UnionSpec(TableSpec):
    """A table that also has the records of other topics, for which tables.yaml has no field."""

    others: tuple[str, ...] = ()

    @property
    def topics(self) -> tuple[str, ...]:
        """See TableSpec."""
        return (self.source.topic, *self.others)


def union(name: str, topic: str, *others: str) -> UnionSpec:
    return UnionSpec(name, SourceSpec(topic, KeySpec("string"), ValueSpec("json")), others=others)
