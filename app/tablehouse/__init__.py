"""Tablehouse: Kafka topics as tables that are read by key over HTTP."""
