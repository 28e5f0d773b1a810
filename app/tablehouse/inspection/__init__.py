"""What the records of a topic look like: proposes definitions of tables, and holds definitions against topics."""
