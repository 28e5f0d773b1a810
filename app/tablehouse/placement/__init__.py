"""Who gets what: the assignor's wire format and the pure function that places shards."""
