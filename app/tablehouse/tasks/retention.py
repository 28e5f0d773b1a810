"""How long a changelog keeps records that its readers must not miss."""

#: Settings of every changelog topic (kafka/topics.py creates and checks them), in milliseconds: how long records are
#: safe from compaction, and how long a tombstone can be read before compaction may remove it.
MIN_COMPACTION_LAG_MS = 3_600_000
DELETE_RETENTION_MS = 86_400_000

#: A cursor idle for longer than this, in seconds, may have missed tombstones, because the worker was stopped or its
#: machine slept. The reader has to start again and check the age of its store.
STOOD_STILL = DELETE_RETENTION_MS / 2000
