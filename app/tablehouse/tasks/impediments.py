"""What keeps a task from making progress: faults that pass by themselves, and those that a person has to fix."""

from collections.abc import Collection, Mapping

from tablehouse.model import TopicPartition
from tablehouse.stores.store import StoreClosed, StoreError
from tablehouse.tasks.dead_letters import LettersUndelivered
from tablehouse.tasks.ingest import RecordRefused
from tablehouse.tasks.lane import SourceLost
from tablehouse.tasks.log import (
    SKIP_ADVICE,
    Fenced,
    LaneOutage,
    LeaseLost,
    LogUnavailable,
    OutcomeUnknown,
    PartitionMissing,
    StoodStill,
    Unreadable,
)
from tablehouse.tasks.pipeline import NotContiguous
from tablehouse.tasks.table_state import ChangelogRefused
from tablehouse.tasks.takeover import SourceRefused

#: Errors that end an attempt to own, until they pass or a person acts. The task stays as readable as it was.
_PASSING: Mapping[type[Exception], str] = {
    LeaseLost: "the group is rebalancing",
    Fenced: "another owner has claimed the partition",
    NotContiguous: "another owner has appended",
    OutcomeUnknown: "the outcome of an append is not known",
    LettersUndelivered: "the dead letters cannot be written",
    LogUnavailable: "the broker is unavailable",
    PartitionMissing: "the changelog is missing",
    Unreadable: "the log cannot be read",
    StoodStill: "the log was not read for too long",
    StoreError: "the store failed",
    StoreClosed: "the store is closed",
    SourceLost: "the source has changed",
    SourceRefused: "the source is refused",
    ChangelogRefused: "the changelog is refused",
}

#: Advice to the operator about records of a changelog that cannot be read.
_CHANGELOG_ADVICE = "if they are lost permanently, give the table a new version, which is built from its source"


def kind_of(error: Exception) -> str | None:
    """Return what an error means that ends an attempt and may pass; None for one that does not pass."""
    return _PASSING.get(type(error))


class Impediments:
    """The impediments of one task that reads `inputs`."""

    def __init__(self, inputs: Collection[TopicPartition]) -> None:
        self._inputs = inputs
        #: Why ingesting has stopped at a record that cannot become a row, until the task is started again.
        self._stop: str | None = None
        #: Why the source or the changelog cannot be used, until an attempt finds that it can.
        self._refusal: str | None = None
        #: Which records the last attempt could not read, or could not write dead letters for, until something is
        #: applied again.
        self._unreadable: str | None = None
        self._undelivered: str | None = None
        #: Whether the last attempt ended at records that the broker could not read, but may be able to read later.
        self._met_refused = False

    @property
    def is_stopped(self) -> bool:
        """Return whether ingesting has stopped at a record that cannot become a row, until the task starts again."""
        return self._stop is not None

    def block(self, outage: LaneOutage | None) -> str | None:
        """Return why a person has to act before the task can continue; None where waiting or a restart may help.

        `outage` is that of the task's lane.
        """
        lasting = outage.reason if outage is not None and outage.lasts else None
        return self._stop or lasting or self._refusal or self._unreadable

    def halt(self, outage: LaneOutage | None) -> str | None:
        """Return why records written to the source now are not applied; None where they are, or soon will be."""
        return self.block(outage) or self._undelivered

    def note(self, error: Exception, kind: str) -> str:
        """Record the error that ended an attempt, and return the reason as text; `kind` is what kind_of() returned."""
        reason = f"{kind}: {error}"
        if isinstance(error, Unreadable):
            reason += f"; {SKIP_ADVICE if error.partition in self._inputs else _CHANGELOG_ADVICE}"
        if isinstance(error, (SourceRefused, ChangelogRefused)):
            self._refusal = reason
        self._undelivered = reason if isinstance(error, LettersUndelivered) else None
        # The broker may be able to read the records at the next attempt, so the first failure does not block the task.
        again, self._met_refused = self._met_refused, isinstance(error, Unreadable) and error.may_pass
        self._unreadable = reason if isinstance(error, Unreadable) and (again or not error.may_pass) else None
        return reason

    def note_stop(self, error: RecordRefused) -> str:
        """Record that ingesting has stopped before a record; return the reason as text."""
        self._stop = (
            f"stopped by on_error: {error}; set on_error to skip or dead_letter and restart the workers to pass it over"
        )
        return self._stop

    def start(self) -> None:
        """Forget the impediments that a new attempt may not meet again."""
        self._stop = self._unreadable = self._undelivered = None

    def pass_refusal(self) -> None:
        """Record that source and changelog can be used."""
        self._refusal = None

    def pass_records(self) -> None:
        """Record that all records so far were read, and have dead letters where they need them."""
        self._unreadable = self._undelivered = None

    def pass_unreadable(self) -> None:
        """Record that all records so far were read."""
        self._unreadable = None

    def clear(self) -> None:
        """Forget everything, because the task is closed."""
        self.start()
        self.pass_refusal()
