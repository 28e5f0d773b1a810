"""Settings: where they come from, what they may be, and how a worker reaches its brokers."""
