"""The engine: tasks, shards and the changelog protocol, against small protocols (log, store, lease, clock).

Read DESIGN.md in this folder first.
"""
