"""The Faust application: consumer group, commits and life cycle for Tablehouse's lanes and tables."""

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

import faust
from faust.app.base import BootStrategy
from faust.transport.conductor import Conductor
from faust.transport.consumer import Fetcher
from faust.transport.drivers.aiokafka import Transport
from faust.types import TP
from mode import Service
from mode.types import ServiceT
from yarl import URL

from tablehouse.kafka.consumer import LaneConsumer
from tablehouse.model import TopicPartition


class Rebalances(Protocol):
    """Called at a rebalance; implemented by the engine."""

    async def revoked(self) -> None:
        """Release all ownership; called before the worker rejoins the group."""

    async def assigned(self, generation: int, partitions: frozenset[TopicPartition]) -> None:
        """Own these partitions, and no others."""


class _Subscription(Conductor):  # type: ignore[misc]  # faust's base has untyped parts
    """Joins the group once; Faust's conductor would wait for agents, and for 45 s after every change."""

    @Service.task  # type: ignore[untyped-decorator]  # mode is not typed enough
    async def _subscriber(self) -> None:
        await self.app.consumer.subscribe(self.app.consumer.topics)


class _Fetcher(Fetcher):  # type: ignore[misc]  # faust's base has untyped parts
    """Runs the lanes until cancelled. Faust's fetcher treats a cancellation during a rebalance as a crash."""

    @Service.task  # type: ignore[untyped-decorator]  # mode is not typed enough
    async def _fetcher(self) -> None:
        try:
            await self.app.consumer._drain_messages(self)
        finally:
            self.set_shutdown()


class _LaneTransport(Transport):  # type: ignore[misc]
    """Faust's aiokafka transport, driven by the lanes."""

    Consumer = LaneConsumer
    Conductor = _Subscription
    Fetcher = _Fetcher


class _BootStrategy(BootStrategy):  # type: ignore[misc]
    """Starts the consumer, the subscription and the fetcher, but no agents, tables, web server or Faust producer."""

    def server(self) -> Iterable[ServiceT]:
        app = self.app
        return [app.consumer, app.topics, app._fetcher]


class TablehouseApp(faust.App):  # type: ignore[misc]
    """Faust's App with Tablehouse's transport; a rebalance only affects shards."""

    BootStrategy = _BootStrategy

    def __init__(self, group: str, bootstrap_servers: str, rebalances: Rebalances) -> None:
        self.rebalances = rebalances
        super().__init__(
            group,
            broker=[URL(f"aiokafka://{server}") for server in bootstrap_servers.split(",")],
            broker_commit_interval=1.0,
            consumer_auto_offset_reset="earliest",
            processing_guarantee="at_least_once",
            stream_wait_empty=True,
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            worker_redirect_stdouts=False,
            autodiscover=False,
        )

    def _new_transport(self) -> _LaneTransport:
        return _LaneTransport(self.conf.broker_consumer, self, loop=asyncio.get_event_loop())

    def _create_directories(self) -> None:
        """Do nothing: stores are in the data directory."""

    async def on_started(self) -> None:
        """Do nothing: each partition becomes ready on its own."""

    async def _producer_flush(self, logger: Any) -> None:
        """Do nothing: Faust's producer is not started."""

    def on_rebalance_start(self) -> None:
        """Record that a rebalance has started."""
        self.rebalancing = True
        self.rebalancing_count += 1

    def on_rebalance_return(self) -> None:
        """Record that the rebalance has ended."""
        self.rebalancing = False

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        del revoked  # eager rebalancing revokes all partitions
        await self.rebalances.revoked()

    async def _on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        partitions = frozenset(TopicPartition(*partition) for partition in assigned)
        self.consumer.hold_all(partitions)
        await self.rebalances.assigned(generation_id, partitions)
        self.on_rebalance_return()

    async def _stop_consumer(self) -> None:
        """Drain before the consumer commits for the last time."""
        await self.rebalances.revoked()
