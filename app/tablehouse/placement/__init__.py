"""Placement of shards on workers: the assignor's wire format and the pure placement function."""
