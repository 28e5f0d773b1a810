"""Where rows live: the row layout, the store protocol and its RocksDB implementation."""
