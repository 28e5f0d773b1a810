"""Real components and simulated ones, for tests, benchmarks and the demo. No worker imports it."""
