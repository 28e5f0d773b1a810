"""What is measured of a program, a module each."""
