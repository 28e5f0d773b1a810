"""Inspects the records of topics: proposes table definitions, and checks definitions against topics."""
