"""Studies that a reader can run: one question, a table, and the kind of every number."""
