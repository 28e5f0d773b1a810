"""Settings: their sources, their types, and the access to brokers and schema registry."""
