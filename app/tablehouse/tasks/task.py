"""A task: one table's partition, from an empty folder to an active that answers and ingests, or a standby that follows.

The order of things, and what a crash at each point leaves behind, is in DESIGN.md.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import structlog

from tablehouse.masking import in_words
from tablehouse.model import Ownership, TaskState, TaskStatus, TopicPartition
from tablehouse.recurring import Recurring
from tablehouse.stores.store import StoreClosed, StoreCorrupt, StoreError, TaskStore
from tablehouse.tasks.dead_letters import LettersUndelivered
from tablehouse.tasks.identity import FingerprintChanged, Identity
from tablehouse.tasks.ingest import LaneBatch, RecordRefused, TableCodec
from tablehouse.tasks.lane import Inbox, Lane, LaneMovedOn, SourceLost
from tablehouse.tasks.log import (
    SKIP_ADVICE,
    Bounds,
    Cursor,
    Fenced,
    LeaseLost,
    LogSlice,
    LogUnavailable,
    OffsetOutOfRange,
    OutcomeUnknown,
    PartitionMissing,
    StoodStill,
    Unreadable,
)
from tablehouse.tasks.open_transactions import OpenTransactions
from tablehouse.tasks.pipeline import IDLE_POSITION_INTERVAL, NotContiguous, Pipeline
from tablehouse.tasks.ports import Ports
from tablehouse.tasks.source_ends import SourceEnds
from tablehouse.tasks.table_state import ChangelogRefused, TableState, Untrusted
from tablehouse.tasks.takeover import SourceRefused, Takeover

log = structlog.get_logger(__name__)

#: A task that catches up looks what became of its batch in flight when no slice has come for so many seconds.
SLICE_PATIENCE = 1.0

#: Pauses between attempts to own a partition, in seconds.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0

#: Seconds for which a standby waits for an owner to catch up with the source before it takes over all the same.
OWNER_PATIENCE = 60.0

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
_CHANGELOG_ADVICE = "if they are lost for good, give the table a new version, which is built from its source"


class Task:
    """One table's partition on this worker."""

    def __init__(
        self,
        identity: Identity,
        partition: int,
        codec: TableCodec,
        store: TaskStore,
        lane: Lane,
        ports: Ports,
        on_store_failed: Callable[[], None],
    ) -> None:
        self.table = identity.table
        self.partition = partition
        self.store = store
        self.state = TaskState.OPENING
        self._reason: str | None = "opening the store"
        self.generation = -1
        #: Why it ingests nothing more, because of a record that cannot be a row, until it is started again.
        self._stop: str | None = None
        #: Why its source or its changelog cannot be used, until an attempt finds otherwise.
        self._refusal: str | None = None
        self._identity = identity
        self._codec = codec
        self._lane = lane
        self._ports = ports
        self._on_store_failed = on_store_failed
        self._table_state = TableState(identity, store, ports.broker_clock, ports.doubts)
        self._takeover = Takeover(self._table_state, lane.source, ports)
        self._loaded = False
        #: What the task does in the present generation: own its partition or follow whoever does.
        self._work: asyncio.Task[None] | None = None
        self._owns = False
        self._distrusted: Exception | None = None
        self._pipeline: Pipeline | None = None
        #: Where the source could be read to after the claim, until the position has reached it.
        self._target: int | None = None
        self._freshness = SourceEnds()
        self._transactions = OpenTransactions(lane.source, self._freshness)
        #: At which records that cannot be read, or that have no dead letter, the last attempt ended, until something is
        #: applied again.
        self._unreadable: str | None = None
        self._undelivered: str | None = None
        #: Whether it was the broker that could not read them, and may the next time.
        self._met_refused = False
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._asked_at = 0.0
        #: When it began to follow or, after that, last had nearly everything of the source.
        self._near_at = ports.clock.monotonic()
        self._log = log.bind(table=self.table, partition=partition)
        self._waits = self._new_warnings()

    def _new_warnings(self) -> Recurring:
        return Recurring(self._log, self._ports.clock.monotonic)

    # What others ask of it

    @property
    def applied(self) -> int:
        """Return the last source offset applied, inclusive; -1 before the first."""
        return self._table_state.applied

    @property
    def rejected(self) -> int:
        """Return how many source records could not become rows since the table was built."""
        position = self._table_state.position
        return 0 if position is None else position.rejected

    @property
    def ownership(self) -> Ownership:
        """Return under which claim of its changelog the partition is owned; meaningful while the task owns it."""
        return Ownership(self._table_state.epoch, self._table_state.log_id)

    @property
    def committable(self) -> int | None:
        """Return the source offset to go on at after a restart; None while nothing was applied."""
        return None if self._table_state.position is None else self._table_state.position.last + 1

    @property
    def readable(self) -> bool:
        """Say whether the store holds a consistent state, however old."""
        return self._loaded and self._table_state.readable

    @property
    def doubt(self) -> str | None:
        """Say why a miss of the table proves nothing; None when it does."""
        return self._ports.doubts.why(self._identity.changelog.topic, self._lane.source.topic)

    @property
    def held_back_reason(self) -> str | None:
        """Say why a miss proves nothing because of an open transaction in the source; None when it does."""
        return self._transactions.doubt(self.applied)

    @property
    def stopped(self) -> bool:
        """Return whether it ingests nothing beyond a record that cannot be a row, until it is started again."""
        return self._stop is not None

    @property
    def blocked(self) -> bool:
        """Return whether neither waiting nor a restart gets the task on: a person has to act."""
        return self._block is not None

    @property
    def _block(self) -> str | None:
        outage = self._lane.outage
        lasting = outage.reason if outage is not None and outage.lasts else None
        return self._stop or lasting or self._refusal or self._unreadable

    @property
    def halt(self) -> str | None:
        """Return why an owner applies nothing that is written to its source now; None where it does, or will soon.

        It is blocked, or its last attempt ended because dead letters could not be written.
        """
        return (self._block or self._undelivered) if self._owns else None

    @property
    def lag_records(self) -> int | None:
        """Return how many source offsets are not applied yet; None while the source's end is not known."""
        end = self._freshness.end(self._ports.clock.monotonic())
        return None if end is None else max(0, end - 1 - self.applied)

    @property
    def staleness_ms(self) -> int | None:
        """Return the milliseconds since the position last reached a known end of the source; None when it never did."""
        at = self._freshness.reached_at
        return None if at is None else int((self._ports.clock.monotonic() - at) * 1000)

    @property
    def remaining(self) -> int | None:
        """Return how many records are to be applied before the task has caught up; None when that is not known."""
        if self._target is not None:
            return max(0, self._target - 1 - self.applied)
        return 0 if self.state >= TaskState.STANDBY else self._takeover.remaining

    @property
    def reason(self) -> str | None:
        """Say why the task is not further than it is; None when nothing keeps it."""
        outage, pipeline = self._lane.outage, self._pipeline
        if outage is not None and pipeline is not None:
            return outage.reason
        waits_for = None if pipeline is None else pipeline.waits_for
        return waits_for or self.store.waits_for or self._reason or self.held_back_reason

    @reason.setter
    def reason(self, reason: str | None) -> None:
        self._reason = reason

    def status(self) -> TaskStatus:
        """Return what there is to know about the task."""
        return TaskStatus(
            table=self.table,
            partition=self.partition,
            state=self.state,
            position=self.applied,
            lag_records=self.lag_records,
            staleness_ms=self.staleness_ms,
            restore_remaining=self.remaining,
            reason=self.reason,
            rows_estimate=self.store.rows_estimate(),
            stopped=self.stopped,
            blocked=self.blocked,
            held_back_seconds=self._transactions.seconds(self.applied),
            rejected_records=self.rejected,
            rejection=None if self._pipeline is None else self._pipeline.rejection,
            suspicion=None if self._codec.suspicion is None else self._codec.suspicion.text,
        )

    def observe_source_end(self, bounds: Bounds, listed_at: float, position: int) -> None:
        """Record the source's bounds as they were listed at a time of the monotonic clock.

        `position` is what the task had applied before they were asked for.
        """
        self._freshness.listed(bounds, listed_at, position)
        self._freshness.applied(self.applied)
        doubt = self.held_back_reason
        if doubt is None:
            self._waits.end("transaction", "no open transaction puts misses in doubt any more")
        else:
            self._waits.warn("transaction", "an open transaction puts misses in doubt", reason=doubt)
        waits = self.blocked or self._lane.outage is not None
        if waits and self.state is TaskState.RESTORING and self._pipeline is not None:
            # The changelog is replayed, and the source does not get on.
            self._show_old_rows()

    def observe_source_missing(self) -> None:
        """Record that the source does not exist: how far behind it the rows are is not known."""
        self._freshness.forget()

    async def wait_for(self, offset: int, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until a source offset is applied or the task closed; say whether it was within `timeout` seconds."""
        if self.applied >= offset:
            return True
        reached = asyncio.get_running_loop().create_future()
        waiter = (offset, reached)
        self._waiting.append(waiter)
        try:
            await asyncio.wait({reached}, timeout=timeout)
        finally:
            self._waiting.remove(waiter)
        return self.applied >= offset

    async def keeps_up(self, acceptable_lag: int) -> bool:
        """Return whether a standby is to take over, which lacks `acceptable_lag` records at most of what its owner has.

        One that lacks no more of what can be read of the source is to. An owner that is further behind is given
        OWNER_PATIENCE seconds, since a new owner says of no key that it does not exist before it has caught up with the
        source. After that the changelog decides: the owner may have stopped at a record, wait for a schema, or have
        more to do than it can, which is when another worker is needed most. False while that is not known.
        """
        now = self._ports.clock.monotonic()
        end = self._freshness.stable_end(now)
        if end is not None and end - 1 - self.applied <= acceptable_lag:
            self._near_at = now
            return True
        if now - self._near_at < OWNER_PATIENCE:
            return False
        try:
            return await self._takeover.lacking() <= acceptable_lag
        except LogUnavailable:
            return False

    def _on_applied(self) -> None:
        applied = self.applied
        self._unreadable = self._undelivered = None
        self._freshness.applied(applied)
        if self._waiting:
            for _, reached in [waiter for waiter in self._waiting if waiter[0] <= applied]:
                if not reached.done():
                    reached.set_result(None)
        self._activate_when_caught_up()

    # Ownership

    def own(self, generation: int) -> None:
        """Start to own the partition in this generation; returns at once."""
        if self.state is TaskState.STANDBY:
            self.reason = "becoming the owner"
            self._log.debug("promoted", position=self.applied, generation=generation)
        self.generation, self._owns = generation, True
        self._start(after=None)

    def follow(self, generation: int) -> None:
        """Start to follow the partition's owner in this generation, as a standby; returns at once."""
        self.generation, self._owns = generation, False
        self._start(after=None)

    def _start(self, after: asyncio.Task[None] | None) -> None:
        self._asked_at = self._near_at = self._ports.clock.monotonic()
        self._stop = self._unreadable = self._undelivered = None
        name = f"{'own' if self._owns else 'follow'} {self.table}[{self.partition}] in generation {self.generation}"
        self._work = asyncio.get_running_loop().create_task(self._keep_at_it(self.generation, after), name=name)

    def distrust(self, error: Exception) -> None:
        """Quarantine the store because of what a reader found in it; returns at once."""
        if self.state is TaskState.QUARANTINED:
            return
        self.state, self.reason, self._distrusted = TaskState.QUARANTINED, str(error), error
        if self._work is not None:
            self._work.cancel()
            self._start(after=self._work)

    async def suspend(self, patience: float, reason: str) -> None:
        """Stop owning or following: give the batch in flight `patience` seconds to be applied, then stand still.

        Never raises for what went wrong meanwhile: whatever it was, the next owner finds it in the changelog.
        """
        work, self._work = self._work, None
        if work is None:
            return
        if self._pipeline is not None:
            await self._pipeline.rest(patience)
        work.cancel()
        await asyncio.wait({work})
        if self.state is not TaskState.CLOSED:
            self._step_down(reason)

    def close(self) -> None:
        """Take note that the store is gone, and let those go who wait for a position."""
        self.state, self.reason, self._loaded = TaskState.CLOSED, None, False
        self._stop = self._refusal = self._unreadable = self._undelivered = None
        for _, reached in self._waiting:
            if not reached.done():
                reached.set_result(None)

    async def _keep_at_it(self, generation: int, after: asyncio.Task[None] | None) -> None:
        """Own or follow until cancelled, again and again whatever passing fault comes in between."""
        if after is not None:
            await self._wait_out(after)
        pause = FIRST_PAUSE
        while True:
            began = self._ports.clock.monotonic()
            try:
                self._load()
                if self._owns:
                    await self._restore()
                    await self._takeover.claim(generation)
                    pause = FIRST_PAUSE
                    await self._ingest()
                else:
                    await self._follow_owner()
            except RecordRefused as error:
                self._stop_at(error)
                return
            except Exception as error:  # noqa: BLE001 - whatever cannot be recovered from stops the worker
                if not await self._recover(error):
                    return
                if isinstance(error, (SourceRefused, ChangelogRefused, Unreadable)):
                    pause = LONGEST_PAUSE
                elif self._ports.clock.monotonic() - began > LONGEST_PAUSE:
                    pause = FIRST_PAUSE
            finally:
                self._lane.leave(self.table)
                await self._drop_pipeline()
            await self._ports.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    @staticmethod
    async def _wait_out(earlier: asyncio.Task[None]) -> None:
        """Wait until an earlier attempt has let go of the shard, even when this one is cancelled meanwhile."""
        try:
            await asyncio.wait({earlier})
        except asyncio.CancelledError:
            await asyncio.wait({earlier})
            raise

    async def _recover(self, error: Exception) -> bool:
        """Get ready for another attempt to own; False when none would help and the worker was told to stop."""
        if isinstance(error, OutcomeUnknown):
            self._ports.metrics.changelog_produce_errors.labels(self.table).inc()
        if isinstance(error, Fenced):
            self._ports.metrics.batches_fenced.labels(self.table).inc()
        if isinstance(error, (Untrusted, OffsetOutOfRange, StoreCorrupt)):
            await self._quarantine(error)
        elif type(error) in _PASSING:
            kind = _PASSING[type(error)]
            reason = f"{kind}: {error}"
            if isinstance(error, Unreadable):
                reason += f"; {SKIP_ADVICE if error.partition == self.source else _CHANGELOG_ADVICE}"
            self._note_refusal(error, reason)
            if isinstance(error, (LettersUndelivered, Unreadable)) and self.state is TaskState.RESTORING:
                self._show_old_rows()
            self._hold(kind, reason)
        else:
            # A bug, or a changed definition: stop rather than serve what may be wrong.
            if not isinstance(error, FingerprintChanged):
                self._log.error("task failed", exc_info=error)
            self.state, self.reason = TaskState.CLOSED, in_words(error)
            self._ports.on_fatal(error)
            return False
        if isinstance(error, StoreError) and not isinstance(error, StoreClosed):
            self._on_store_failed()
        return True

    def _note_refusal(self, error: Exception, reason: str) -> None:
        if isinstance(error, (SourceRefused, ChangelogRefused)):
            self._refusal = reason
        self._undelivered = reason if isinstance(error, LettersUndelivered) else None
        # What the broker could not read once may be read the next time.
        again, self._met_refused = self._met_refused, isinstance(error, Unreadable) and error.may_pass
        self._unreadable = reason if isinstance(error, Unreadable) and (again or not error.may_pass) else None
        if isinstance(error, SourceRefused):
            # How far old rows are behind another topic of the same name is not known.
            self._freshness.distrust()
            # A standby that is to be the owner would answer by a staleness, which is not known any more.
            if self.state in {TaskState.RESTORING, TaskState.STANDBY}:
                self._show_old_rows()

    def _show_old_rows(self) -> None:
        """Let rows be read for what they are: the changelog is replayed, and only the source does not get on."""
        if self.readable:
            self.state = TaskState.SUSPENDED

    def _stop_at(self, error: RecordRefused) -> None:
        """Stand still before a record, for good: nothing about it changes by itself."""
        self._show_old_rows()
        self._stop = (
            f"stopped by on_error: {error}; set on_error to skip or dead_letter and restart the workers to pass it over"
        )
        self._step_down(self._stop)
        record, reason, detail = error.bad
        self._log.error(
            "stopped at a record that cannot become a row",
            topic=self._lane.source.topic,
            offset=record.offset,
            reason=reason,
            detail=detail,
        )

    def _hold(self, kind: str, reason: str) -> None:
        """Stay as readable as the task was: an active becomes SUSPENDED, and its hits say so."""
        self._waits.warn(kind, "partition cannot go on", reason=reason, state=self.state.name.lower())
        self._step_down(reason)

    def _step_down(self, reason: str) -> None:
        if self.state is TaskState.ACTIVE:
            self.state = TaskState.SUSPENDED
        self.reason = reason

    async def _quarantine(self, error: Exception) -> None:
        self.state, self.reason = TaskState.QUARANTINED, str(error)
        self._ports.metrics.store_quarantines.labels(self.table).inc()
        self._log.error("store quarantined; it is rebuilt from the changelog", error=str(error))
        # Until it is wiped the store is what was found wrong, and what is in memory says nothing about it any more.
        self._distrusted, self._loaded = error, False
        wiping = asyncio.get_running_loop().create_task(self._table_state.forget())
        try:
            await asyncio.shield(wiping)
        except asyncio.CancelledError:
            # Wiping goes on in its thread, so whoever comes next would meet it half-done.
            await asyncio.wait({wiping})
            if not wiping.cancelled() and wiping.exception() is None:
                self._distrusted = None
            raise
        except StoreError as failure:
            self._waits.error("wipe", "the quarantined store cannot be wiped", error=str(failure))
        else:
            self._distrusted, self.state = None, TaskState.RESTORING

    async def _drop_pipeline(self) -> None:
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            await pipeline.drop()

    def _load(self) -> None:
        if self._distrusted is not None:
            raise Untrusted(str(self._distrusted))
        if not self._loaded:
            self.state, self.reason = TaskState.OPENING, "opening the store"
            self._table_state.load()
            self._loaded = True
            self._freshness.loaded(self.applied)

    async def _restore(self) -> None:
        # A standby that is to be the owner, and an owner that could not prove it, stay as readable as they are.
        if self.state < TaskState.STANDBY:
            self.state, self.reason = TaskState.RESTORING, "replaying the changelog"
        self._lane.expect(self.table)
        await self._takeover.restore()
        self._refusal = None
        self._freshness.trust()
        self._freshness.applied(self.applied)

    async def _follow_owner(self) -> None:
        self._target, self._transactions.claimed_end = None, 0
        if self.readable:
            self._stand_by()
        else:
            self.state, self.reason = TaskState.RESTORING, "replaying the changelog"
        await self._takeover.follow(self._on_replayed, self._on_followed)

    def _on_replayed(self) -> None:
        """Stand by: the store has what the changelog had when the replay began, so nothing keeps it any more."""
        self._refusal = self.reason = self._unreadable = None
        self._stand_by()

    def _stand_by(self) -> None:
        if self.state is not TaskState.STANDBY:
            self.state, self.reason, self._waits = TaskState.STANDBY, None, self._new_warnings()
            self._log.debug("standby", position=self.applied, generation=self.generation)

    def _on_followed(self) -> None:
        if not self.readable and self.state is TaskState.STANDBY:
            self.state, self.reason = TaskState.RESTORING, "replaying what may have been compacted"
        self._on_applied()

    # Ingesting

    async def _ingest(self) -> None:
        listed_at, position = self._ports.clock.monotonic(), self.applied
        bounds = await self._takeover.source_bounds()
        self.observe_source_end(bounds, listed_at, position)
        self._target = bounds.end
        # Without an open transaction the target is all that the source holds.
        self._transactions.claimed_end = bounds.high_watermark if bounds.held else 0
        if self.state < TaskState.SUSPENDED:
            self.reason = "catching up with the source"
        pipeline = self._pipeline = Pipeline(
            self.table,
            self._identity.changelog,
            self._codec,
            self._table_state,
            self._ports.writer,
            self._ports.metrics,
            self._ports.dead_letters,
            self._ports.doubts,
            self._ports.turns,
            self._ports.known.schemas,
            self._ports.large_batches,
            self._on_applied,
            partial(self._lane.step_aside, self.table),
        )
        if bounds.high_watermark < pipeline.needed:
            raise SourceLost(f"{self._lane.source} ends at offset {bounds.high_watermark}, before {pipeline.needed}")
        if bounds.start > pipeline.needed:
            if self._table_state.position is not None:
                raise SourceLost(f"{self._lane.source} has no offset {pipeline.needed}")
            # Offsets that retention removed before the table saw any of the topic count as applied: they hold nothing.
            await pipeline.feed(LaneBatch.of((), pipeline.needed, bounds.start))
        if pipeline.knows_more:
            await pipeline.feed(LaneBatch.of((), pipeline.needed, pipeline.needed))
        self._activate_when_caught_up()
        while True:
            inbox = self._lane.admit(self.table, pipeline.needed) or await self._catch_up(pipeline)
            await self._follow(inbox, pipeline)

    def _activate_when_caught_up(self) -> None:
        """Become ACTIVE once all that could be read of the source after the claim is applied.

        Latched: later lag shows in the headers and does not undo it. What an open transaction held back then makes
        misses doubtful until it is applied, and rows wait for no transaction.
        """
        if self._target is not None and self.applied + 1 >= self._target:
            self._target = self._unreadable = self._undelivered = None
            if self.state < TaskState.SUSPENDED:
                seconds = self._ports.clock.monotonic() - self._asked_at
                self._ports.metrics.restore_duration.labels(self.table).observe(seconds)
            self.state, self.reason, self._waits = TaskState.ACTIVE, None, self._new_warnings()
            self._log.debug("active", position=self.applied, generation=self.generation)

    async def _catch_up(self, pipeline: Pipeline) -> Inbox:
        """Ingest from the source beside the lane until it can be joined."""
        async with self._ports.sources.read(self._lane.source, pipeline.needed) as cursor:
            while True:
                piece = await self._next_slice(cursor, pipeline)
                await pipeline.feed(LaneBatch.of(piece.records, pipeline.needed, piece.next_offset))
                inbox = self._lane.admit(self.table, pipeline.needed)
                if inbox is not None:
                    return inbox

    async def _next_slice(self, cursor: Cursor, pipeline: Pipeline) -> LogSlice:
        """Wait for a slice; raises what became of the batch in flight when none comes soon."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(SLICE_PATIENCE):
                    return await cursor.next()
            await pipeline.settle()
            return await cursor.next()
        except OffsetOutOfRange as error:
            raise SourceLost(str(error)) from error

    async def _follow(self, inbox: Inbox, pipeline: Pipeline) -> None:
        """Ingest what the lane delivers until it goes on without this task."""
        while True:
            if inbox.empty:
                await pipeline.settle()
            try:
                async with asyncio.timeout(IDLE_POSITION_INTERVAL):
                    batch = await inbox.take(pipeline.limit)
            except TimeoutError:
                batch = LaneBatch.of((), pipeline.needed, pipeline.needed)
            except LaneMovedOn:
                return
            await pipeline.feed(batch)
            # Its rows may be large, and it may be long until the next one comes.
            del batch

    @property
    def source(self) -> TopicPartition:
        """Return the source partition."""
        return self._lane.source
