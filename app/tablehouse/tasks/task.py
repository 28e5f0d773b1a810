"""A task: one table's partition, from an empty store to an active that ingests and answers, or a standby that follows.

DESIGN.md describes the order of the steps, and what a crash at each point leaves behind.
"""

import asyncio
from collections.abc import Callable

import structlog

from tablehouse.masking import in_words
from tablehouse.model import TaskState, TopicPartition
from tablehouse.recurring import Recurring
from tablehouse.stores.store import StoreClosed, StoreCorrupt, StoreError, TaskStore
from tablehouse.tasks.dead_letters import LettersUndelivered
from tablehouse.tasks.identity import FingerprintChanged, Identity
from tablehouse.tasks.impediments import kind_of
from tablehouse.tasks.ingest import RecordRefused, TableCodec
from tablehouse.tasks.ingestion import Ingestion
from tablehouse.tasks.lane import Lane
from tablehouse.tasks.log import Bounds, Fenced, OffsetOutOfRange, OutcomeUnknown, Unreadable
from tablehouse.tasks.ports import Ports
from tablehouse.tasks.table_state import ChangelogRefused, Untrusted
from tablehouse.tasks.takeover import SourceRefused
from tablehouse.tasks.task_view import TaskView

log = structlog.get_logger(__name__)

#: Pauses between attempts to own a partition, in seconds.
MIN_PAUSE_SECONDS = 0.05
MAX_PAUSE_SECONDS = 5.0


class Task(TaskView):
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
        super().__init__(identity, partition, codec, store, lane, ports)
        self._on_store_failed = on_store_failed
        #: What the task does in the present generation.
        self._work: asyncio.Task[None] | None = None
        self._asked_at = 0.0
        self._distrusted: Exception | None = None
        self._log = log.bind(table=self.table, partition=partition)
        self._waits = self._new_warnings()

    def _new_warnings(self) -> Recurring:
        return Recurring(self._log, self._ports.clock.monotonic)

    # Observations of the source

    def observe_source_end(self, source: TopicPartition, bounds: Bounds, listed_at: float, position: int) -> None:
        """Record an input's bounds; `listed_at` is a monotonic time.

        `position` is what the task had applied of it before they were requested.
        """
        self._progress.observe_end(source, bounds, listed_at, position)
        doubt = self.held_back_reason
        if doubt is None:
            self._waits.end("transaction", "no open transaction puts misses in doubt any more")
        else:
            self._waits.warn("transaction", "an open transaction puts misses in doubt", reason=doubt)
        waits = self.blocked or self._lane.outage is not None
        if waits and self.state is TaskState.RESTORING and self._ingestion is not None:
            # The changelog is replayed, and only the source is stuck.
            self._show_old_rows()

    def observe_source_missing(self, source: TopicPartition) -> None:
        """Record that an input does not exist, so that lag and staleness are unknown."""
        self._progress.observe_missing(source)

    def _on_applied(self) -> None:
        self._impediments.pass_records()
        self._progress.advance()
        self._activate_when_caught_up()

    # Ownership

    def own(self, generation: int) -> None:
        """Start owning the partition in this generation; returns at once."""
        if self.state is TaskState.STANDBY:
            self.reason = "becoming the owner"
            self._log.debug("promoted", position=self.position.text, generation=generation)
        self.generation, self._owns = generation, True
        self._start(after=None)

    def follow(self, generation: int) -> None:
        """Start following the partition's owner in this generation, as a standby; returns at once."""
        self.generation, self._owns = generation, False
        self._start(after=None)

    def _start(self, after: asyncio.Task[None] | None) -> None:
        self._asked_at = self._ports.clock.monotonic()
        self._progress.start()
        self._impediments.start()
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
        """Stop owning or following, after giving the batch in flight `patience` seconds to be applied.

        Does not raise if that fails: the next owner replays what is in the changelog.
        """
        work, self._work = self._work, None
        if work is None:
            return
        if self._ingestion is not None:
            await self._ingestion.pipeline.rest(patience)
        work.cancel()
        await asyncio.wait({work})
        if self.state is not TaskState.CLOSED:
            self._step_down(reason)

    def close(self) -> None:
        """Record that the store is gone, and wake the callers that wait for a position."""
        self.state, self.reason, self._loaded = TaskState.CLOSED, None, False
        self._impediments.clear()
        self._progress.release_waiters()

    async def _keep_at_it(self, generation: int, after: asyncio.Task[None] | None) -> None:
        """Own or follow until cancelled; retry after each fault that may pass."""
        if after is not None:
            await self._wait_out(after)
        pause = MIN_PAUSE_SECONDS
        while True:
            began = self._ports.clock.monotonic()
            try:
                self._load()
                if self._owns:
                    await self._restore()
                    await self._takeover.claim(generation)
                    pause = MIN_PAUSE_SECONDS
                    await self._ingest()
                else:
                    await self._follow_owner()
            except RecordRefused as error:
                self._stop_at(error)
                return
            except Exception as error:  # noqa: BLE001 - an error without a recovery stops the worker
                if not await self._recover(error):
                    return
                if isinstance(error, (SourceRefused, ChangelogRefused, Unreadable)):
                    pause = MAX_PAUSE_SECONDS
                elif self._ports.clock.monotonic() - began > MAX_PAUSE_SECONDS:
                    pause = MIN_PAUSE_SECONDS
            finally:
                self._lane.leave(self.table)
                await self._drop_ingestion()
            await self._ports.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    @staticmethod
    async def _wait_out(earlier: asyncio.Task[None]) -> None:
        """Wait until an earlier attempt has released the shard, even when this one is cancelled meanwhile."""
        try:
            await asyncio.wait({earlier})
        except asyncio.CancelledError:
            await asyncio.wait({earlier})
            raise

    async def _recover(self, error: Exception) -> bool:
        """Prepare another attempt; return False if none would help, after telling the worker to stop."""
        if isinstance(error, OutcomeUnknown):
            self._ports.metrics.changelog_produce_errors.labels(self.table).inc()
        if isinstance(error, Fenced):
            self._ports.metrics.batches_fenced.labels(self.table).inc()
        kind = kind_of(error)
        if isinstance(error, (Untrusted, OffsetOutOfRange, StoreCorrupt)):
            await self._quarantine(error)
        elif kind is not None:
            self._hold(error, kind)
        else:
            # A bug, or a changed definition: stop rather than serve wrong answers.
            if not isinstance(error, FingerprintChanged):
                self._log.error("task failed", exc_info=error)
            self.state, self.reason = TaskState.CLOSED, in_words(error)
            self._ports.on_fatal(error)
            return False
        if isinstance(error, StoreError) and not isinstance(error, StoreClosed):
            self._on_store_failed()
        return True

    def _show_old_rows(self) -> None:
        """Become SUSPENDED if the store is readable: the changelog is replayed, and only the source is stuck."""
        if self.readable:
            self.state = TaskState.SUSPENDED

    def _stop_at(self, error: RecordRefused) -> None:
        """Stop permanently before a record, because waiting would not change it."""
        self._show_old_rows()
        self._step_down(self._impediments.note_stop(error))
        record, reason, detail = error.bad
        self._log.error(
            "stopped at a record that cannot become a row",
            topic=self._lane.source.topic,
            offset=record.offset,
            reason=reason,
            detail=detail,
        )

    def _hold(self, error: Exception, kind: str) -> None:
        """Stay as readable as before: an active becomes SUSPENDED, which its rows are labelled with."""
        reason = self._impediments.note(error, kind)
        if isinstance(error, SourceRefused):
            # The lag of old rows behind another topic of the same name is unknown.
            self._progress.distrust_source()
            # As a STANDBY the new owner would need a staleness for its answers, which is now unknown.
            if self.state in {TaskState.RESTORING, TaskState.STANDBY}:
                self._show_old_rows()
        if isinstance(error, (LettersUndelivered, Unreadable)) and self.state is TaskState.RESTORING:
            self._show_old_rows()
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
        # Until the store is wiped it stays distrusted, and the table state in memory is no longer valid.
        self._distrusted, self._loaded = error, False
        wiping = asyncio.get_running_loop().create_task(self._table_state.forget())
        try:
            await asyncio.shield(wiping)
        except asyncio.CancelledError:
            # Wiping continues in its thread, so without this wait the next attempt would find it half done.
            await asyncio.wait({wiping})
            if not wiping.cancelled() and wiping.exception() is None:
                self._distrusted = None
            raise
        except StoreError as failure:
            self._waits.error("wipe", "the quarantined store cannot be wiped", error=str(failure))
        else:
            self._distrusted, self.state = None, TaskState.RESTORING

    async def _drop_ingestion(self) -> None:
        ingestion, self._ingestion = self._ingestion, None
        if ingestion is not None:
            await ingestion.pipeline.drop()

    def _load(self) -> None:
        if self._distrusted is not None:
            raise Untrusted(str(self._distrusted))
        if not self._loaded:
            self.state, self.reason = TaskState.OPENING, "opening the store"
            self._table_state.load()
            self._loaded = True
            self._progress.load()

    async def _restore(self) -> None:
        # A promoted standby, and an owner that has to claim again, stay as readable as they are.
        if self.state < TaskState.STANDBY:
            self.state, self.reason = TaskState.RESTORING, "replaying the changelog"
        self._lane.expect(self.table)
        await self._takeover.restore()
        self._impediments.pass_refusal()
        self._progress.trust_source()

    async def _follow_owner(self) -> None:
        self._progress.aim_at_nothing()
        if self.readable:
            self._stand_by()
        else:
            self.state, self.reason = TaskState.RESTORING, "replaying the changelog"
        await self._takeover.follow(self._on_replayed, self._on_followed)

    def _on_replayed(self) -> None:
        """Become STANDBY: the store has reached the end that the changelog had when the replay began."""
        self._impediments.pass_refusal()
        self._impediments.pass_unreadable()
        self.reason = None
        self._stand_by()

    def _stand_by(self) -> None:
        if self.state is not TaskState.STANDBY:
            self.state, self.reason, self._waits = TaskState.STANDBY, None, self._new_warnings()
            self._log.debug("standby", position=self.position.text, generation=self.generation)

    def _on_followed(self) -> None:
        if not self.readable and self.state is TaskState.STANDBY:
            self.state, self.reason = TaskState.RESTORING, "replaying what may have been compacted"
        self._on_applied()

    async def _ingest(self) -> None:
        listed: dict[TopicPartition, Bounds] = {}
        for source in self.inputs:
            listed_at, position = self._ports.clock.monotonic(), self.applied(source)
            bounds = listed[source] = await self._takeover.source_bounds(source)
            self.observe_source_end(source, bounds, listed_at, position)
            self._progress.aim_at(source, bounds)
        if self.state < TaskState.SUSPENDED:
            self.reason = "catching up with the source"
        ingestion = self._ingestion = Ingestion(
            self._table_state, self._codec, self._lane, self._ports, self._on_applied
        )
        await ingestion.begin(listed[self.source])
        self._activate_when_caught_up()
        await ingestion.run()

    def _activate_when_caught_up(self) -> None:
        """Become ACTIVE once everything up to the source's stable end after the claim is applied.

        Later lag shows in the headers, but the task stays ACTIVE. Records that an open transaction held back then put
        misses in doubt until they are applied; rows are served meanwhile.
        """
        if self._progress.reach_target():
            self._impediments.pass_records()
            if self.state < TaskState.SUSPENDED:
                seconds = self._ports.clock.monotonic() - self._asked_at
                self._ports.metrics.restore_duration.labels(self.table).observe(seconds)
            self.state, self.reason, self._waits = TaskState.ACTIVE, None, self._new_warnings()
            self._log.debug("active", position=self.position.text, generation=self.generation)
