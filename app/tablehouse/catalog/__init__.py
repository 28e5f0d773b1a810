"""Table definitions: tables.yaml becomes frozen specs and their fingerprints."""
