"""The writer process: rings to journal, database and Redis."""
