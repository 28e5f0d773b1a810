"""What keeps a task from going on: what passes by itself, and what a person has to act on."""

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

#: What ends an attempt to own and is over by itself, or when a person acts: the task stays as readable as it was.
_PASSING: Mapping[type[Exception], str] = {
    LeaseLost: "the group is rebalancing",
    Fenced: "another owner has claimed the partition",
    NotContiguous: "another owner has appended",
    OutcomeUnknown: "the outcome of an append is not known",
    LettersUndelivered: "the dead letters cannot be written",
    LogUnavailable: "the broker cannot be asked",
    PartitionMissing: "the changelog is missing",
    Unreadable: "the log cannot be read",
    StoodStill: "the log was not looked at for long",
    StoreError: "the store failed",
    StoreClosed: "the store is closed",
    SourceLost: "the source has changed",
    SourceRefused: "the source is refused",
    ChangelogRefused: "the changelog is refused",
}

#: What an operator may do about records of a changelog that cannot be read.
_CHANGELOG_ADVICE = "if they are lost permanently, give the table a new version, which is built from its source"


def kind_of(error: Exception) -> str | None:
    """Return what an error means that ends an attempt and passes; None for one that does not pass."""
    return _PASSING.get(type(error))


class Impediments:
    """Those of one task that reads `inputs`."""

    def __init__(self, inputs: Collection[TopicPartition]) -> None:
        self._inputs = inputs
        #: Why it ingests nothing more, because of a record that cannot be a row, until it is started again.
        self._stop: str | None = None
        #: Why its source or its changelog cannot be used, until an attempt finds otherwise.
        self._refusal: str | None = None
        #: At which records that cannot be read, or that have no dead letter, the last attempt ended, until something is
        #: applied again.
        self._unreadable: str | None = None
        self._undelivered: str | None = None
        #: Whether it was the broker that could not read them, and may the next time.
        self._met_refused = False

    @property
    def is_stopped(self) -> bool:
        """Return whether a record that cannot be a row has ended ingesting until the task is started again."""
        return self._stop is not None

    def block(self, outage: LaneOutage | None) -> str | None:
        """Return why neither waiting nor a restart gets the task on; None where one may. `outage` is its lane's."""
        lasting = outage.reason if outage is not None and outage.lasts else None
        return self._stop or lasting or self._refusal or self._unreadable

    def halt(self, outage: LaneOutage | None) -> str | None:
        """Return why nothing that is written to the source is applied now; None where it is, or will be soon."""
        return self.block(outage) or self._undelivered

    def note(self, error: Exception, kind: str) -> str:
        """Record what ended an attempt, of a kind as kind_of() returns it; return the reason in words."""
        reason = f"{kind}: {error}"
        if isinstance(error, Unreadable):
            reason += f"; {SKIP_ADVICE if error.partition in self._inputs else _CHANGELOG_ADVICE}"
        if isinstance(error, (SourceRefused, ChangelogRefused)):
            self._refusal = reason
        self._undelivered = reason if isinstance(error, LettersUndelivered) else None
        # What the broker could not read once may be read the next time.
        again, self._met_refused = self._met_refused, isinstance(error, Unreadable) and error.may_pass
        self._unreadable = reason if isinstance(error, Unreadable) and (again or not error.may_pass) else None
        return reason

    def note_stop(self, error: RecordRefused) -> str:
        """Record that nothing is applied beyond a record; return the reason in words."""
        self._stop = (
            f"stopped by on_error: {error}; set on_error to skip or dead_letter and restart the workers to pass it over"
        )
        return self._stop

    def start(self) -> None:
        """Forget what a new attempt may not meet again."""
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
        """Forget everything, since the task is closed."""
        self.start()
        self.pass_refusal()
