"""The HTTP server: the public API, the internal API between workers, and the client for the latter."""
