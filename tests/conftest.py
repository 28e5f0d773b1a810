"""Fixtures for every tier; a broker starts only when a test asks for one."""

from tests.support.kafka import kafka

__all__ = ["kafka"]
