"""A task's identity, as stored in its checkpoint and claims, and the check that its table's definition is unchanged."""

from collections.abc import Mapping
from dataclasses import dataclass

from tablehouse.catalog.fingerprint import difference
from tablehouse.errors import SetupError
from tablehouse.model import TopicPartition


class FingerprintChanged(SetupError):
    """The table's definition differs from the one its changelog was built with."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What identifies a task in its checkpoint and claims.

    `inputs` are the source partitions that it reads, each with its name in positions (TableSpec.input_name).
    """

    table: str
    changelog: TopicPartition
    fingerprint: Mapping[str, str]
    inputs: Mapping[TopicPartition, str]


def require_same_definition(identity: Identity, built_with: Mapping[str, str], where: str) -> None:
    """Raise FingerprintChanged unless a store or a claim was made with the table's present definition."""
    changed = difference(built_with, identity.fingerprint)
    if changed:
        raise FingerprintChanged(
            f"table {identity.table}: {where} was built with another definition: {'; '.join(changed)}. Restore "
            "that definition, or give the table a new version, which is built next to the old data"
        )
