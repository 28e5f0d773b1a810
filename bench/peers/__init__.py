"""What is measured: a Tablehouse worker, and the programs that people would otherwise write."""
