"""A guard over what tablehouse.kafka overrides and uses of its libraries beyond their public interface.

It fails when a pinned library changes, when one of its privates is not what was read before it was overridden, and when
tablehouse.kafka begins to use another one. It needs no broker; it stands here because only these tests can say
afterwards whether a new version works.
"""

import ast
import hashlib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from importlib.metadata import requires, version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import aiokafka
import pytest

import tablehouse.kafka

VERSIONS = {"faust-streaming": "0.15.3", "mode-streaming": "0.7.1", "aiokafka": "0.14.0"}
LIBRARIES = ("faust", "mode", "aiokafka")

_AIOKAFKA, _APP = Path(aiokafka.__file__).parent, Path(tablehouse.kafka.__file__).parents[1]


class Pinned(NamedTuple):
    """Something of a library as it was when it was read, and what rests on it."""

    signature: str
    digest: str
    check: str


_LANE = "consumer.py: the lanes replace it; compare what else it does (flags, offsets, exceptions)"
_COMMITS = "consumer.py: commits read positions from the stores; who calls this, and what does it do besides?"
_ADVISORY = (
    "commits.py: what a commit and a fetch of committed offsets do to the membership and the coordinator, and which "
    "answers end them; a connection must be kept by broker and group, whatever the group is"
)
_CALLBACKS = (
    "consumer.py, faust_app.py: rebalance callbacks; in which order, under which generation, who sees an exception?"
)
_LIFE = "faust_app.py, worker.py: start and stop; what is started, what is stopped, in which order?"
_STAMP = (
    "changelog_writer.py: a batch must be stamped by asking for sequence_number, then producer_id, then producer_epoch "
    "in one loop turn; a retry must keep its stamp"
)
_SETTLE = (
    "changelog_writer.py: which errors fail a batch, which are retried without end, and when its future is done; "
    "producers.py: a batch that was sent must take itself out of _pending_batches when its future is done"
)
_LEASE = (
    "lease.py: every heartbeat must pass through coordinator._send_req with a HeartbeatRequest that says its generation"
)
_POSITION = (
    "lane_fetcher.py, log_reader.py: the position must move in the same loop turn as records are handed out, to the "
    "offset after them, and past offsets without a record"
)
_GROUP = (
    "group_watch.py: check_errors must raise what ended the coordination or was answered by the coordinator, before "
    "getmany does or in its place; the fetch routine must end with the error that it cannot go on after"
)
_TAKEN = (
    "raw_records.py: what else getall() does; an iterator of records may be asked once; both classes are looked "
    "up in their module where they are made"
)
_BATCH = (
    "record_batches.py: a batch must be decompressed into _buffer from _pos on, with _num_records records; "
    "FetchedBatches: a parser of a fetch's batches must still take them all to have the format of the first"
)
_CODECS = (
    "decompression.py: each parser must look its decoder up by this name in its own module whenever it is called, and "
    "take bytes or a bytearray; the ones here must decompress what these do"
)
_AHEAD = (
    "log_reader.py: _prefetch_backoff must be read for every answer; zero must let partitions be fetched one by one; "
    "fetching_ahead.py: _max_partition_fetch_bytes must be read for every request"
)
_FAULT = (
    "lane_fetcher.py: fetched_records must raise a partition's error while its local `tp` is that partition; what it "
    "took of others before is lost; fetch_refusals.py: an answer must come from send(), and which codes it tells its "
    "caller of; _set_error() must have fetched_records raise it"
)
_REQUEST = (
    "changelog_writer.py: all that goes into one request must come out of drain_by_nodes, one batch for a partition, "
    "and the sender must drain again once a request is answered"
)
_TAKE_BACK = (
    "source_writer.py: send() has handed nothing over unless it returns; a batch of retry_count 0 was never sent, has "
    "no sequence number yet, and may be taken out of _batches between two turns of the loop"
)
_LISTING = (
    "offset_listing.py: a metadata request about given topics into given metadata; topics of an answer must begin with "
    "their error and name; a ListOffsets answer of v1 or newer"
)
_LOOKING = (
    "metadata_requests.py: every Metadata request must be made by the name MetadataRequest in aiokafka.client or "
    "aiokafka.admin.client, looked up when it is made; build() must pass on what the constructor was given, and "
    "leaves out whether topics may be created in versions before 4"
)
_REBOOTSTRAP = (
    "rebootstrap.py: every refresh must go through _metadata_update, looked up on the client, which is false when no "
    "broker known has answered; a connection that fails must ask for a refresh; names are resolved each time"
)
_LOGIN = (
    "login.py: what a broker answers to a token must reach the authenticator's next step; SCRAM's step must raise for "
    "an answer that does not fit the password; a connection that ends must fail its requests with the reason as their "
    "cause; tokens.py: what token() raises must fail a connection alone"
)
_ASSIGNOR = (
    "assignor.py: how the coordinator calls the assignor, with which members and cluster, from _perform_assignment "
    "alone; what it does with a user_data that it does not know"
)
_PLACING = (
    "assignor.py: _perform_assignment must return what assign() did and do nothing with it but log it; its caller must "
    "take bytes, and keep no request to rejoin; _metadata_snapshot must be replaced when partition counts change; no "
    "heartbeat task from the join to its end, and nobody who looks the coordinator up; close() must set _closing first "
    "and may find the group left already, of which the assignments must say nothing: no member id, no generation"
)

PINNED: dict[str, Pinned] = {
    "faust.transport.consumer:Consumer._drain_messages": Pinned("self, fetcher", "f5292b0eea7f5f43", _LANE),
    "faust.transport.consumer:Consumer._getmany": Pinned("self, active_partitions, timeout", "c58a7b482aa64839", _LANE),
    "faust.transport.consumer:Consumer._seek": Pinned("self, partition, offset", "3dadfd7dad0ff881", _LANE),
    "faust.transport.consumer:Consumer._to_message": Pinned("self, tp, record", "e3cd22fe3506956d", _LANE),
    "faust.transport.consumer:Consumer.seek_to_committed": Pinned("self", "bc7da7531769b8ac", _LANE),
    "faust.transport.consumer:Fetcher._fetcher": Pinned("self", "7c70f3830df7a37b", _LANE),
    "faust.transport.consumer:Fetcher.on_stop": Pinned("self", "20fcc3ed9110a026", _LANE),
    "faust.transport.consumer:Consumer._commit_handler": Pinned("self", "6ca8038acfd345e8", _COMMITS),
    "faust.transport.consumer:Consumer.commit": Pinned(
        "self, topics, start_new_transaction", "b6ef3bb5f5877eb4", _COMMITS
    ),
    "faust.transport.consumer:Consumer.maybe_wait_for_commit_to_finish": Pinned("self", "bdc2e2fbeda0c757", _COMMITS),
    "faust.transport.consumer:Consumer.force_commit": Pinned(
        "self, topics, start_new_transaction", "67a16256f2b2905f", _COMMITS
    ),
    "faust.transport.consumer:Consumer._commit_tps": Pinned(
        "self, tps, start_new_transaction", "107c7b3b2dcf323e", _COMMITS
    ),
    "faust.transport.consumer:Consumer._filter_tps_with_pending_acks": Pinned(
        "self, topics", "10bf18d3ecf47958", _COMMITS
    ),
    "faust.transport.consumer:Consumer._filter_committable_offsets": Pinned("self, tps", "ebc9df2907704189", _COMMITS),
    "faust.transport.consumer:Consumer._handle_attached": Pinned("self, commit_offsets", "6f9584e5b4f35531", _COMMITS),
    "faust.transport.consumer:Consumer._commit_offsets": Pinned(
        "self, offsets, start_new_transaction", "392a2d988fc0e22a", _COMMITS
    ),
    "faust.transport.consumer:Consumer._commit": Pinned("self, offsets", "9a4da7abc9479da4", _COMMITS),
    "faust.transport.consumer:Consumer.wait_empty": Pinned("self", "98f2e749e184e72d", _COMMITS),
    "faust.transport.consumer:Consumer._new_topicpartition": Pinned(
        "self, topic, partition", "9382c296eceb4c68", _COMMITS
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._do_commit_offsets": Pinned(
        "self, assignment, offsets", "48eb3816d9ea549a", _ADVISORY
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._maybe_refresh_commit_offsets": Pinned(
        "self, assignment", "c64e540952f13572", _ADVISORY
    ),
    "aiokafka.consumer.fetcher:Fetcher._update_fetch_positions": Pinned(
        "self, assignment, node_id, tps", "ad774dbac5e902a9", _ADVISORY
    ),
    "aiokafka.consumer.subscription_state:Assignment.requesting_committed": Pinned(
        "self", "a94d624aa99bc696", _ADVISORY
    ),
    "aiokafka.protocol.commit:OffsetCommitRequest.__init__": Pinned("constructor", "107d7d0af17eab1f", _ADVISORY),
    "aiokafka.client:AIOKafkaClient.__init__": Pinned("constructor", "8f5cbfb63214a87d", _ADVISORY),
    "faust.transport.consumer:Consumer.on_partitions_revoked": Pinned("self, revoked", "e7564e625d0b164d", _CALLBACKS),
    "faust.transport.consumer:Consumer.on_partitions_assigned": Pinned(
        "self, assigned, generation_id", "a2f6d5bbb1b6d501", _CALLBACKS
    ),
    "faust.app.base:App.on_rebalance_start": Pinned("self", "80281faa8d706d57", _CALLBACKS),
    "faust.app.base:App.on_rebalance_return": Pinned("self", "0d718b7b9f3bc594", _CALLBACKS),
    "faust.app.base:App._on_partitions_revoked": Pinned("self, revoked", "67caf4ad2e542e32", _CALLBACKS),
    "faust.app.base:App._on_partitions_assigned": Pinned(
        "self, assigned, generation_id", "9e2b7ef1258589c1", _CALLBACKS
    ),
    "aiokafka.abc:ConsumerRebalanceListener.on_partitions_revoked": Pinned(
        "self, revoked", "518975e818ba39d3", _CALLBACKS
    ),
    "aiokafka.abc:ConsumerRebalanceListener.on_partitions_assigned": Pinned(
        "self, assigned", "1cc20df95e78ae03", _CALLBACKS
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._on_join_prepare": Pinned(
        "self, previous_assignment", "857baa5c9efbd2d0", _CALLBACKS
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._on_join_complete": Pinned(
        "self, generation, member_id, protocol, member_assignment_bytes", "190caf1242c8113a", _CALLBACKS
    ),
    "faust.transport.conductor:Conductor._subscriber": Pinned("self", "6b03b7a4d7670d06", _CALLBACKS),
    "faust.transport.consumer:Consumer.on_stop": Pinned("self", "36b1f6913b807d77", _LIFE),
    "faust.transport.consumer:Consumer.close": Pinned("self", "238943f010ce2513", _LIFE),
    "faust.app.base:BootStrategy.server": Pinned("self", "4e1c0fb621240b50", _LIFE),
    "faust.app.base:App._new_transport": Pinned("self", "2644c0e1e602ade6", _LIFE),
    "faust.app.base:App._create_directories": Pinned("self", "5e40d6b1a5c0ec98", _LIFE),
    "faust.app.base:App.on_started": Pinned("self", "c528bcb843b9ff8e", _LIFE),
    "faust.app.base:App._producer_flush": Pinned("self, logger", "ff11253d97bbd72d", _LIFE),
    "faust.app.base:App._stop_consumer": Pinned("self", "0df1511054558f89", _LIFE),
    "faust.app.base:App.stop": Pinned("self", "b9d212c0dbd37a94", _LIFE),
    "mode.services:ServiceCallbacks.on_start": Pinned("self", "6f03b2bb7119afaa", _LIFE),
    "mode.services:ServiceCallbacks.on_stop": Pinned("self", "eba7abd6c0cae777", _LIFE),
    "mode.services:Service.crash": Pinned("self, reason", "60d7eb785cddd0b1", _LIFE),
    "mode.worker:Worker._install_signal_handlers_unix": Pinned("self", "07009812ea40de42", _LIFE),
    "mode.worker:Worker._schedule_shutdown": Pinned("self, signal", "b6842c55aa9eed27", _LIFE),
    "mode.worker:Worker._stop_on_signal": Pinned("self, signal", "882a4723a89e905d", _LIFE),
    "mode.worker:Worker.stop_and_shutdown": Pinned("self", "36dc3c585ff99b04", _LIFE),
    "mode.worker:Worker._shutdown_loop": Pinned("self", "c5afffd590dda6f0", _LIFE),
    "faust.worker:Worker._setproctitle": Pinned("self, info, ident", "d2824fd77a418b38", _LIFE),
    "aiokafka.producer.message_accumulator:MessageAccumulator._pop_batch": Pinned(
        "self, tp", "8f23a588449013c6", _STAMP
    ),
    "aiokafka.producer.message_accumulator:MessageAccumulator.reenqueue": Pinned(
        "self, batch", "5a3e452f60955629", _STAMP
    ),
    "aiokafka.producer.transaction_manager:TransactionManager.__init__": Pinned(
        "constructor", "23f99fbf1724631f", _STAMP
    ),
    "aiokafka.producer.transaction_manager:TransactionManager.has_pid": Pinned("self", "b3316876e6f8c159", _STAMP),
    "aiokafka.producer.transaction_manager:TransactionManager.sequence_number": Pinned(
        "self, tp", "5526ce6502aa39f7", _STAMP
    ),
    "aiokafka.producer.transaction_manager:TransactionManager.increment_sequence_number": Pinned(
        "self, tp, increment", "c37aeefccaf47ab4", _STAMP
    ),
    "aiokafka.producer.transaction_manager:TransactionManager.producer_id": Pinned(
        "property", "21a43505c4f48166", _STAMP
    ),
    "aiokafka.producer.transaction_manager:TransactionManager.producer_epoch": Pinned(
        "property", "50abcdad413b3065", _STAMP
    ),
    "aiokafka.producer.producer:AIOKafkaProducer.__init__": Pinned("constructor", "80b2e383e4155036", _SETTLE),
    "aiokafka.producer.producer:AIOKafkaProducer.send_batch": Pinned(
        "self, batch, topic, partition", "98e01e08ed4ce32f", _SETTLE
    ),
    "aiokafka.producer.producer:AIOKafkaProducer.create_batch": Pinned("self", "36f10539953b78d6", _SETTLE),
    "aiokafka.producer.producer:AIOKafkaProducer.stop": Pinned("self", "4a629276c2238054", _SETTLE),
    "aiokafka.producer.message_accumulator:MessageAccumulator.add_batch": Pinned(
        "self, builder, tp, timeout", "0cf9d0d7007ea1fe", _SETTLE
    ),
    "aiokafka.producer.message_accumulator:MessageBatch.done": Pinned(
        "self, base_offset, timestamp, log_start_offset, _record_metadata_class", "4d5cfc9502e3ab74", _SETTLE
    ),
    "aiokafka.producer.message_accumulator:MessageBatch.failure": Pinned(
        "self, exception", "49c036d0f9381604", _SETTLE
    ),
    "aiokafka.producer.sender:Sender.__init__": Pinned("constructor", "75e29b571f0e5bbd", _STAMP),
    "aiokafka.producer.sender:Sender.close": Pinned("self", "f597446671e5cc70", _SETTLE),
    "aiokafka.producer.sender:Sender._sender_routine": Pinned("self", "0282c37ee94f4fbd", _SETTLE),
    "aiokafka.producer.message_accumulator:MessageAccumulator.fail_all": Pinned(
        "self, exception", "93e224929af58c53", _SETTLE
    ),
    "aiokafka.producer.sender:Sender._send_produce_req": Pinned("self, node_id, batches", "b96b94c9fffcb244", _SETTLE),
    "aiokafka.producer.sender:Sender._maybe_wait_for_pid": Pinned("self", "44312f59af9af0e7", _SETTLE),
    "aiokafka.producer.sender:SendProduceReqHandler.do": Pinned("self, node_id", "45b365377b2b6e12", _SETTLE),
    "aiokafka.producer.sender:SendProduceReqHandler.handle_response": Pinned(
        "self, response", "3cc6c069611b144a", _SETTLE
    ),
    "aiokafka.producer.sender:SendProduceReqHandler._can_retry": Pinned(
        "self, error, batch", "3c1dca5380be03ae", _SETTLE
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator.__init__": Pinned("constructor", "6d9be6a0f0e52ab4", _LEASE),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._send_req": Pinned(
        "self, request", "8425caa33c12c3e0", _LEASE
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._do_heartbeat": Pinned("self", "fadb8a2080c345e5", _LEASE),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._heartbeat_routine": Pinned(
        "self", "9593f360d8cfb488", _LEASE
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator.check_errors": Pinned("self", "98643f8549bf3ca9", _LEASE),
    "aiokafka.protocol.group:HeartbeatRequest.__init__": Pinned("constructor", "047eb372b3088488", _LEASE),
    "aiokafka.consumer.consumer:AIOKafkaConsumer.__init__": Pinned("constructor", "4e5f5746274864dd", _POSITION),
    "aiokafka.consumer.consumer:AIOKafkaConsumer.getmany": Pinned(
        "self, partitions, timeout_ms, max_records", "4df501a111ea7e8c", _POSITION
    ),
    "aiokafka.consumer.consumer:AIOKafkaConsumer.position": Pinned("self, partition", "14565b03bfbe96de", _POSITION),
    "aiokafka.consumer.consumer:AIOKafkaConsumer.seek": Pinned(
        "self, partition, offset", "18d56e297eabf594", _POSITION
    ),
    "aiokafka.consumer.consumer:AIOKafkaConsumer.assign": Pinned("self, partitions", "77def2f48c2ad6df", _POSITION),
    "aiokafka.consumer.fetcher:Fetcher.fetched_records": Pinned(
        "self, partitions, timeout, max_records", "112ba171e7cd13fa", _POSITION
    ),
    "aiokafka.consumer.fetcher:FetchResult": Pinned("class", "15ed1f81d1be4234", _POSITION),
    "aiokafka.consumer.fetcher:FetchResult.getall": Pinned("self, max_records", "1b448682c740c086", _TAKEN),
    "aiokafka.consumer.fetcher:PartitionRecords": Pinned("class", "3f1579e88c9e8fa5", _POSITION),
    "aiokafka.record.default_records:_DefaultRecordBatchPy": Pinned("class", "73d5746f2a0c6d83", _BATCH),
    "aiokafka.codec:gzip_decode": Pinned("payload", "ebc2792c011f7684", _CODECS),
    "aiokafka.codec:snappy_decode": Pinned("payload", "036b77d1fdd4633c", _CODECS),
    "aiokafka.codec:lz4_decode": Pinned("payload", "5bc82b3f6861c77f", _CODECS),
    "aiokafka.codec:zstd_decode": Pinned("payload", "9194cf13a6de0f3e", _CODECS),
    "aiokafka.codec:_detect_xerial_stream": Pinned("payload", "872bbf7b7adf407c", _CODECS),
    "aiokafka.consumer.subscription_state:TopicPartitionState": Pinned("class", "4b3c9207efa24286", _POSITION),
    "aiokafka.consumer.subscription_state:Assignment.state_value": Pinned("self, tp", "37c879c7f277e6b5", _POSITION),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._coordination_routine": Pinned(
        "self", "898ec3d18f0c610a", _GROUP
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._push_error_to_user": Pinned(
        "self, exc", "5c2099af5199e131", _GROUP
    ),
    "aiokafka.consumer.subscription_state:SubscriptionState.abort_waiters": Pinned(
        "self, exc", "a5f4fbb6dd7fccdb", _GROUP
    ),
    "aiokafka.consumer.fetcher:Fetcher.error_future": Pinned("property", "b95aaebbb70767eb", _GROUP),
    "aiokafka.consumer.fetcher:Fetcher._fetch_requests_routine": Pinned("self", "918e1cf92fbfeee2", _GROUP),
    "aiokafka.consumer.fetcher:Fetcher._proc_fetch_request": Pinned(
        "self, assignment, node_id, request", "0e9e17b0c5b9071a", _FAULT
    ),
    "aiokafka.consumer.fetcher:Fetcher._get_actions_per_node": Pinned("self, assignment", "c5fd5f2c276e4a93", _AHEAD),
    "aiokafka.consumer.fetcher:FetchError": Pinned("class", "d54710646f9356a1", _FAULT),
    "aiokafka.consumer.fetcher:Fetcher.seek_to": Pinned("self, tp, offset", "53dedce9a9e0d436", _FAULT),
    "aiokafka.producer.message_accumulator:MessageAccumulator.__init__": Pinned(
        "constructor", "0dbbd92c0d22c68a", _REQUEST
    ),
    "aiokafka.producer.message_accumulator:MessageAccumulator.drain_by_nodes": Pinned(
        "self, ignore_nodes, muted_partitions", "56c1ac09f272bdd2", _REQUEST
    ),
    "aiokafka.producer.message_accumulator:MessageBatch.__init__": Pinned("constructor", "b8e120f87ab25625", _REQUEST),
    "aiokafka.producer.message_accumulator:BatchBuilder.size": Pinned("self", "780b5a3b4a1f09ac", _REQUEST),
    "aiokafka.producer.producer:AIOKafkaProducer.send": Pinned(
        "self, topic, value, key, partition, timestamp_ms, headers", "1ab18674938e279d", _TAKE_BACK
    ),
    "aiokafka.producer.message_accumulator:MessageAccumulator.add_message": Pinned(
        "self, tp, key, value, timeout, timestamp_ms, headers", "91d5de027cffd2cb", _TAKE_BACK
    ),
    "aiokafka.producer.message_accumulator:MessageBatch.wait_drain": Pinned(
        "self, timeout", "231b77fe296152ff", _TAKE_BACK
    ),
    "aiokafka.client:AIOKafkaClient._metadata_update": Pinned(
        "self, cluster_metadata, topics", "1238786f25bb46ff", _LISTING
    ),
    "aiokafka.protocol.metadata:MetadataRequest.__init__": Pinned("constructor", "0a61978acdaa0a6b", _LOOKING),
    "aiokafka.protocol.metadata:MetadataRequest.build": Pinned(
        "self, request_struct_class", "cf33b672cfd961b7", _LOOKING
    ),
    "aiokafka.admin.client:AIOKafkaAdminClient._get_cluster_metadata": Pinned(
        "self, topics", "96b007daa72bd2c4", _LOOKING
    ),
    "aiokafka.client:AIOKafkaClient.bootstrap": Pinned("self", "2af303a025918490", _REBOOTSTRAP),
    "aiokafka.client:AIOKafkaClient._md_synchronizer": Pinned("self", "925f6b101c52815c", _REBOOTSTRAP),
    "aiokafka.conn:create_conn": Pinned(
        "host, port, client_id, request_timeout_ms, ssl_context, security_protocol, max_idle_ms, on_close, "
        "sasl_mechanism, sasl_plain_username, sasl_plain_password, sasl_kerberos_service_name, "
        "sasl_kerberos_domain_name, sasl_oauth_token_provider",
        "33e6bb9d754d3207",
        _REBOOTSTRAP,
    ),
    "aiokafka.client:AIOKafkaClient.send": Pinned("self, node_id, request, group", "15af6ba4e9f8287a", _LISTING),
    "aiokafka.cluster:ClusterMetadata.leader_for_partition": Pinned("self, partition", "ea5d9e875120a488", _LISTING),
    "aiokafka.cluster:ClusterMetadata.update_metadata": Pinned("self, metadata", "4950806a1f3a6a2d", _LISTING),
    "aiokafka.protocol.offset:OffsetRequest": Pinned("class", "4677f3e1108a9499", _LISTING),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._perform_assignment": Pinned(
        "self, response", "8f5d8477b01340d3", _PLACING
    ),
    "aiokafka.consumer.group_coordinator:CoordinatorGroupRebalance._on_join_leader": Pinned(
        "self, response", "2a1078dde28426e8", _PLACING
    ),
    "aiokafka.consumer.group_coordinator:CoordinatorGroupRebalance._send_sync_group_request": Pinned(
        "self, request", "a504eecc33b9722c", _PLACING
    ),
    "aiokafka.consumer.group_coordinator:BaseCoordinator._handle_metadata_update": Pinned(
        "self, cluster", "3da1a9e4eff94254", _PLACING
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator.close": Pinned("self", "b05de61667743c4d", _PLACING),
    "aiokafka.consumer.group_coordinator:GroupCoordinator._maybe_leave_group": Pinned(
        "self", "2d93d31da89f384a", _PLACING
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator.ensure_coordinator_known": Pinned(
        "self", "82ef96b5c5728451", _PLACING
    ),
    "aiokafka.consumer.group_coordinator:GroupCoordinator.ensure_active_group": Pinned(
        "self, subscription, prev_assignment", "13a1b4457ff89d02", _PLACING
    ),
    "aiokafka.coordinator.assignors.abstract:AbstractPartitionAssignor.name": Pinned(
        "property", "a550251adc8cf786", _ASSIGNOR
    ),
    "aiokafka.coordinator.assignors.abstract:AbstractPartitionAssignor.metadata": Pinned(
        "cls, topics", "70781e4e21d7e709", _ASSIGNOR
    ),
    "aiokafka.coordinator.assignors.abstract:AbstractPartitionAssignor.assign": Pinned(
        "cls, cluster, members", "bbee56ff9ead9e68", _ASSIGNOR
    ),
    "aiokafka.coordinator.assignors.abstract:AbstractPartitionAssignor.on_assignment": Pinned(
        "cls, assignment", "b03709c5ce57ec58", _ASSIGNOR
    ),
    "aiokafka.conn:AIOKafkaConnection._do_sasl_handshake": Pinned("self", "d8bd36f67e143937", _LOGIN),
    "aiokafka.conn:AIOKafkaConnection.authenticator_oauth": Pinned("self", "5ef8352fe96d2ea7", _LOGIN),
    "aiokafka.conn:AIOKafkaConnection.authenticator_scram": Pinned("self", "49cc0e4a1a205fb4", _LOGIN),
    "aiokafka.conn:BaseSaslAuthenticator.step": Pinned("self, payload", "c65ff5d02a63906c", _LOGIN),
    "aiokafka.conn:ScramAuthenticator.authenticator_scram": Pinned("self", "ec36ed278032a801", _LOGIN),
    "aiokafka.conn:AIOKafkaConnection.close": Pinned("self, reason, exc", "3566becd3ed72c60", _LOGIN),
    "aiokafka.conn:OAuthAuthenticator.step": Pinned("self, payload", "a8f3cf2229774d5f", _LOGIN),
    "aiokafka.client:AIOKafkaClient._get_conn": Pinned("self, node_id, group, no_hint", "273cc4accb6d61fa", _LOGIN),
    "aiokafka.abc:AbstractTokenProvider.token": Pinned("self", "c912ca85799ae124", _LOGIN),
}

#: Attributes with an underscore that tablehouse.kafka reaches for on objects of the libraries, and what pins them.
REACHED_FOR = {
    "_acks": "aiokafka.producer.sender:Sender.__init__",
    "_get_cluster_metadata": "aiokafka.admin.client:AIOKafkaAdminClient._get_cluster_metadata",
    "_aborted_producers": "aiokafka.consumer.fetcher:PartitionRecords",
    "_assignment": "aiokafka.consumer.fetcher:FetchResult",
    "_batches": "aiokafka.producer.message_accumulator:MessageAccumulator.__init__",
    "_buffer": "aiokafka.record.default_records:_DefaultRecordBatchPy",
    "_brokers": "aiokafka.cluster:ClusterMetadata.update_metadata",
    "_builder": "aiokafka.producer.message_accumulator:MessageBatch.__init__",
    "_check_crcs": "aiokafka.consumer.fetcher:PartitionRecords",
    "_client": "aiokafka.consumer.consumer:AIOKafkaConsumer.__init__",
    "_closing": "aiokafka.consumer.group_coordinator:GroupCoordinator.__init__",
    "_cluster": "aiokafka.producer.message_accumulator:MessageAccumulator.__init__",
    "_conns": "aiokafka.client:AIOKafkaClient.__init__",
    "_consume_aborted_up_to": "aiokafka.consumer.fetcher:PartitionRecords",
    "_coordination_task": "aiokafka.consumer.group_coordinator:GroupCoordinator.__init__",
    "_coordinator": "aiokafka.consumer.consumer:AIOKafkaConsumer.__init__",
    "_do_heartbeat": "aiokafka.consumer.group_coordinator:GroupCoordinator._do_heartbeat",
    "_drain_messages": "faust.transport.consumer:Consumer._drain_messages",
    "_drain_waiter": "aiokafka.producer.message_accumulator:MessageBatch.__init__",
    "_fetcher": "faust.app.base:BootStrategy.server",
    "_generation_id": "aiokafka.protocol.group:HeartbeatRequest.__init__",
    "_heartbeat_interval_ms": "aiokafka.consumer.group_coordinator:GroupCoordinator.__init__",
    "_isolation_level": "aiokafka.consumer.fetcher:PartitionRecords",
    "_key_deserializer": "aiokafka.consumer.fetcher:PartitionRecords",
    "_loop": "aiokafka.conn:AIOKafkaConnection.authenticator_scram",
    "_max_partition_fetch_bytes": "aiokafka.consumer.fetcher:Fetcher._get_actions_per_node",
    "_maybe_leave_group": "aiokafka.consumer.group_coordinator:GroupCoordinator._maybe_leave_group",
    "_maybe_uncompress": "aiokafka.record.default_records:_DefaultRecordBatchPy",
    "_message_accumulator": "aiokafka.producer.producer:AIOKafkaProducer.__init__",
    "_maybe_refresh_commit_offsets": (
        "aiokafka.consumer.group_coordinator:GroupCoordinator._maybe_refresh_commit_offsets"
    ),
    "_metadata_snapshot": "aiokafka.consumer.group_coordinator:BaseCoordinator._handle_metadata_update",
    "_metadata_update": "aiokafka.client:AIOKafkaClient._metadata_update",
    "_num_records": "aiokafka.record.default_records:_DefaultRecordBatchPy",
    "_on_join_complete": "aiokafka.consumer.group_coordinator:GroupCoordinator._on_join_complete",
    "_pending_batches": "aiokafka.producer.message_accumulator:MessageAccumulator.__init__",
    "_perform_assignment": "aiokafka.consumer.group_coordinator:GroupCoordinator._perform_assignment",
    "_pos": "aiokafka.record.default_records:_DefaultRecordBatchPy",
    "_prefetch_backoff": "aiokafka.consumer.fetcher:Fetcher._get_actions_per_node",
    "_records": "aiokafka.consumer.fetcher:PartitionRecords",
    "_sasl_mechanism": "aiokafka.conn:AIOKafkaConnection.authenticator_scram",
    "_sasl_oauth_token_provider": "aiokafka.conn:AIOKafkaConnection.authenticator_oauth",
    "_sasl_plain_password": "aiokafka.conn:AIOKafkaConnection.authenticator_scram",
    "_sasl_plain_username": "aiokafka.conn:AIOKafkaConnection.authenticator_scram",
    "_schedule_shutdown": "mode.worker:Worker._schedule_shutdown",
    "_send_req": "aiokafka.consumer.group_coordinator:GroupCoordinator._send_req",
    "_sender": "aiokafka.producer.producer:AIOKafkaProducer.__init__",
    "_sequence_numbers": "aiokafka.producer.transaction_manager:TransactionManager.__init__",
    "_set_error": "aiokafka.consumer.fetcher:Fetcher._proc_fetch_request",
    "_starting_fut": "mode.worker:Worker._stop_on_signal",
    "_subscription": "aiokafka.consumer.consumer:AIOKafkaConsumer.__init__",
    "_topic_partition": "aiokafka.consumer.fetcher:FetchResult",
    "_tp": "aiokafka.consumer.fetcher:PartitionRecords",
    "_txn_manager": "aiokafka.producer.producer:AIOKafkaProducer.__init__",
    "_update_position": "aiokafka.consumer.fetcher:FetchResult",
}


@pytest.mark.parametrize(("library", "expected"), VERSIONS.items())
def test_the_library_is_the_version_whose_source_was_read(library: str, expected: str) -> None:
    assert version(library) == expected, f"{library}: read every entry of PINNED again before moving to a new version"


@pytest.mark.parametrize(("library", "expected"), VERSIONS.items())
def test_the_library_is_pinned_exactly_for_whoever_installs(library: str, expected: str) -> None:
    pinned = [
        requirement
        for requirement in requires("tablehouse") or []
        if requirement.partition("[")[0].partition("==")[0] == library
    ]
    assert [requirement.partition("==")[2] for requirement in pinned] == [expected]


@pytest.mark.parametrize("name", PINNED)
def test_what_is_overridden_or_used_is_what_was_read(name: str) -> None:
    pinned, found = PINNED[name], _resolve(name)

    assert _signature(found) == pinned.signature, f"{name} is called differently now; {pinned.check}"
    assert _digest(found) == pinned.digest, f"the source of {name} has changed; {pinned.check}"


def test_everything_that_is_overridden_is_pinned() -> None:
    overridden = {name: ours for cls in _our_classes() for name, ours in _overridden(cls)}

    missing = [f"{name} (by {ours})" for name, ours in overridden.items() if name not in PINNED]
    assert not missing, f"read these, and pin them: {missing}"


def test_an_override_takes_what_the_original_takes() -> None:
    for cls in _our_classes():
        for name, ours in _overridden(cls):
            original, override = _resolve(name), inspect.getattr_static(cls, ours.rpartition(".")[2])
            if not (inspect.isfunction(original) and inspect.isfunction(override)):
                continue
            wanted, given = inspect.signature(original).parameters, inspect.signature(override).parameters
            if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in given.values()):
                continue
            assert list(given) == list(wanted), f"{ours} against {name}"


def test_every_private_that_is_reached_for_is_pinned() -> None:
    found = {attribute for module in _modules() for attribute in _reached_for(module)}

    assert found == set(REACHED_FOR)
    assert set(REACHED_FOR.values()) <= set(PINNED)


def test_metadata_is_asked_for_only_where_the_request_that_creates_no_topic_was_put() -> None:
    asking = {
        str(path.relative_to(_AIOKAFKA)): path.read_text("utf-8").count("MetadataRequest(")
        for path in _AIOKAFKA.rglob("*.py")
        if "protocol" not in path.parts and "MetadataRequest(" in path.read_text("utf-8")
    }

    assert asking == {"client.py": 2, "admin/client.py": 1}


def test_whatever_makes_a_client_of_kafka_has_seen_to_it_that_no_topic_is_created() -> None:
    clients = re.compile(r"AIOKafka(?:Client|Consumer|Producer|AdminClient)\((?!\))")
    for path in _APP.rglob("*.py"):
        for found in clients.finditer(text := path.read_text("utf-8")):
            given = text[found.end() :].lstrip()
            assert re.match(r"\*\*\w+(\.\w+|\(\w+\))*\.arguments\(\)", given), f"{path}: not made with a Connection"


def _modules() -> list[ModuleType]:
    return [
        importlib.import_module(f"tablehouse.kafka.{found.name}")
        for found in pkgutil.iter_modules(tablehouse.kafka.__path__)
    ]


def _our_classes() -> list[type]:
    return [
        member
        for module in _modules()
        for member in vars(module).values()
        if inspect.isclass(member) and member.__module__ == module.__name__
    ]


def _overridden(cls: type) -> Iterator[tuple[str, str]]:
    """Yield (the library's name, our name) of every callable or property that a class overrides."""
    for attribute in vars(cls):
        if attribute == "__init__":  # a constructor takes what it likes
            continue
        for base in cls.__mro__[1:]:
            if base.__module__.partition(".")[0] in LIBRARIES and attribute in vars(base):
                original = vars(base)[attribute]
                # faust.types only declares; a class put in the place of another is pinned by what it overrides.
                if not base.__module__.startswith("faust.types") and _is_code(original):
                    yield f"{base.__module__}:{base.__qualname__}.{attribute}", f"{cls.__qualname__}.{attribute}"
                break


def _reached_for(module: ModuleType) -> Iterator[str]:
    """Yield the underscored attributes that are used on anything but self and are not defined in the module itself."""
    tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"))
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    stored = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            own = node.attr in defined | stored and (_is_self(node.value) or node.attr not in REACHED_FOR)
            if not own and ast.unparse(node) != "os._exit":
                yield node.attr


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


def _resolve(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = inspect.getattr_static(found, part)
        while inspect.isclass(found) and found.__module__.startswith("tablehouse."):
            # A class of ours in the place of the library's.
            found = found.__base__
    return found


def _is_code(found: Any) -> bool:
    return isinstance(found, property) or inspect.isfunction(_function(found))


def _function(found: Any) -> Any:
    """Return what is behind a property, a class method or mode's ServiceTask; anything else as it is."""
    for inner in ("fget", "fun", "__func__"):
        found = getattr(found, inner, found)
    return found


def _signature(found: Any) -> str:
    """Return the names of the parameters; annotations are left to the digest."""
    if isinstance(found, property):
        return "property"
    if inspect.isclass(found):
        return "class"
    function = _function(found)
    return "constructor" if function.__name__ == "__init__" else ", ".join(inspect.signature(function).parameters)


def _digest(found: Any) -> str:
    """Return a digest of the source without indentation, blank lines and lines of comment."""
    lines = (line.strip() for line in inspect.getsource(inspect.unwrap(_function(found))).splitlines())
    return hashlib.sha256("\n".join(line for line in lines if line and line[0] != "#").encode()).hexdigest()[:16]
