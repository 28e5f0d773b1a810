"""The Helm chart, and what is generated of it."""
