"""Applies changes of the catalog to a running worker: tables that are added, removed or redefined.

A removed table is no longer served once the swap returns. An added table is served once its topics are prepared. This
takes requests to the brokers, and may have to wait for an operator; until then, requests for the table are refused with
the reason. A redefined table is removed and added. No state is saved: a worker that restarts reads its tables from its
file, and prepares their topics again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import structlog

from tablehouse.catalog.spec import Catalog, TableSpec
from tablehouse.catalog.view import CatalogChange, CatalogView
from tablehouse.errors import SetupError
from tablehouse.kafka.dead_letters import KafkaDeadLetters
from tablehouse.kafka.service import UNREACHABLE
from tablehouse.kafka.topics import Topics, TopicsView
from tablehouse.masking import in_words
from tablehouse.recurring import Recurring
from tablehouse.tasks.partition_counts import PartitionCounts
from tablehouse.tasks.served import goes_on
from tablehouse.tasks.shards import Shards
from tablehouse.worker.local_side import LocalSide
from tablehouse.worker.membership import Membership

log = structlog.get_logger(__name__)

#: Seconds between attempts to prepare tables.
_RETRY_INTERVAL = 5.0

_PREPARING = "its topics are being prepared"


class Following:
    """Makes all parts of a running worker that depend on its tables follow the catalog.

    `topics` holds the topics of the served tables, and is updated here. `prepare` returns them for a new catalog, given
    the current ones; it raises SetupError and the errors in UNREACHABLE. `share_memory` divides the memory budget among
    the served tables.
    """

    def __init__(
        self,
        catalog: CatalogView,
        topics: TopicsView,
        prepare: Callable[[Topics, Catalog], Awaitable[Topics]],
        *,
        group: str,
        letters: KafkaDeadLetters,
        counts: PartitionCounts,
        local: LocalSide,
        shards: Shards,
        membership: Membership,
        share_memory: Callable[[Topics], None],
    ) -> None:
        self._catalog = catalog
        self._topics = topics
        self._prepare = prepare
        self._group = group
        self._letters = letters
        self._counts = counts
        self._local = local
        self._shards = shards
        self._membership = membership
        self._share_memory = share_memory
        self._changed = asyncio.Event()
        self._recurring = Recurring(log)

    async def follow(self) -> None:
        """Apply each swap, and those before this call, until cancelled."""
        self._catalog.subscribe(self._on_swap)
        self._stop_serving()
        while True:
            self._changed.clear()
            missing = self._missing()
            pause = await self._add(missing) if missing else None
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    def _on_swap(self, _: CatalogChange) -> None:
        self._stop_serving()
        self._changed.set()

    def _missing(self) -> Mapping[str, TableSpec]:
        """Return the tables of the catalog that are not served yet."""
        served = self._topics.current.catalog.tables
        return {name: table for name, table in self._catalog.current.tables.items() if name not in served}

    def _stop_serving(self) -> None:
        """Stop serving the tables that were removed or redefined."""
        wanted, served = self._catalog.current.tables, self._topics.current.catalog.tables
        kept = {name: table for name, table in wanted.items() if name in served and goes_on(served[name], table)}
        if kept != served:
            self._serve(self._topics.current.only(Catalog(kept), self._group))
        self._local.waiting = dict.fromkeys(self._missing(), _PREPARING)

    async def _add(self, missing: Mapping[str, TableSpec]) -> float | None:
        """Prepare tables and serve them; return the seconds until a retry, None to wait for the next swap."""
        catalog = self._catalog.current
        try:
            topics = await self._prepare(self._topics.current, catalog)
        except (SetupError, *UNREACHABLE) as error:
            reason = str(error) if isinstance(error, SetupError) else in_words(error)
            if self._catalog.current is catalog:
                self._local.waiting = dict.fromkeys(missing, reason)
            self._recurring.error(
                "prepare", "tables cannot be served yet; trying again", tables=list(missing), reason=reason
            )
            return _RETRY_INTERVAL
        if self._catalog.current is not catalog:
            return 0.0
        self._recurring.end("prepare", "tables can be served", tables=list(missing))
        self._local.waiting = {}
        self._serve(topics)
        log.info("tables are served", tables=list(missing))
        return None

    def _serve(self, topics: Topics) -> None:
        before, self._topics.current = self._topics.current, topics
        self._share_memory(topics)
        if topics.dead_letters is not None and topics.dead_letters is not before.dead_letters:
            self._letters.use(topics.dead_letters)
        self._counts.follow(topics.counts)
        self._local.held = topics.counts.held
        self._shards.serve(topics.served)
        self._membership.follow(before, topics)
