"""`python -m tablehouse`, which is the command `tablehouse`."""

from tablehouse.cli.main import main

main(prog_name="tablehouse")
