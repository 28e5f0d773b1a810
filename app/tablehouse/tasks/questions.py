"""The questions that a copy of a partition can be asked, as values, and their results.

A question answers itself from a task through the reader, which decides who may read what. One answer is one slice of
work, so the result of a question about many rows may cover only the first of them; it says which. More questions are in
ranges.py, counting.py and digest.py.
"""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import msgspec

from tablehouse.errors import WriteRefused
from tablehouse.model import Consistency
from tablehouse.tasks.reads import Reader, ReadResult, SliceResult
from tablehouse.tasks.task import Task

Result_co = TypeVar("Result_co", covariant=True)

#: Seconds after which a refused write may be retried: a person has to act first.
REFUSED_RETRY_AFTER = 60


class Question(Protocol[Result_co]):
    """A question about one partition of a table."""

    def answer(self, task: Task, reader: Reader, consistency: Consistency) -> Result_co:
        """Answer from a task, in one slice of work and without waiting.

        Raises what Reader.read raises, and the store's errors.
        """


class Get(msgspec.Struct, frozen=True, array_like=True, tag="get", gc=False):
    """The row of one key."""

    stored_key: bytes

    def answer(self, task: Task, reader: Reader, consistency: Consistency) -> ReadResult:
        """Return the row, or a result that says that there is none."""
        return reader.read(task, self.stored_key, consistency)


class MultiGet(msgspec.Struct, frozen=True, array_like=True, tag="multi_get"):
    """The rows of several keys. The result covers the first keys, as many as fit into one slice of work."""

    stored_keys: Sequence[bytes]

    def answer(self, task: Task, reader: Reader, consistency: Consistency) -> SliceResult:
        """Return the copy's rows for the first keys, at least one."""
        sizes, table = reader.sizes, task.table
        keys = self.stored_keys[: sizes.rows(table)]
        result = reader.read_many(task, keys, consistency)
        sizes.learn(table, len(keys), result.size)
        return result


class Applied(msgspec.Struct, frozen=True, array_like=True, tag="applied"):
    """Whether records written to the partition's source are applied; only the owner's answer counts."""

    def answer(self, task: Task, reader: Reader, consistency: Consistency) -> None:  # noqa: ARG002 - no row is read
        """Raise WriteRefused if the task owns the partition and applies nothing until a person acts.

        Does not raise while the task restores, or waits for a broker.
        """
        why = task.halt
        if why is not None:
            raise WriteRefused(
                f"nothing was written to partition {task.partition} of table {task.table}, since no read would show "
                f"it: {why}",
                retry_after=REFUSED_RETRY_AFTER,
                table=task.table,
                partition=task.partition,
            )


def is_short(question: object) -> bool:
    """Return whether a question is answered within microseconds: any other one takes a slice of work, in its turn."""
    return isinstance(question, Get | Applied)
