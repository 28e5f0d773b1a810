"""Storage of rows: the row layout, the store protocol and its RocksDB implementation."""
