"""The engine: tasks, shards and the changelog protocol, against small protocols (log, store, lease, clock).

Read DESIGN.md beside this file first.
"""
