"""Measurements, each run by hand as `python -m bench.<name>` from the repository's root."""
