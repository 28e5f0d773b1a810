"""Fixtures for every tier; a broker or a worker starts only when a test asks for one."""

from tests.support.kafka import kafka
from tests.support.worker import make_worker

__all__ = ["kafka", "make_worker"]
