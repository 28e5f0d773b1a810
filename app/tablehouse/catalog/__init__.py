"""Table definitions: reads tables.yaml into frozen specs, and computes their fingerprints."""
