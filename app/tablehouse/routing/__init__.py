"""From a key to the worker that answers for it: the cluster snapshot and the query."""
