"""SQL scalar expressions: text to a checked tree to a function of a row."""
