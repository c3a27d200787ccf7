"""The writer process: rings to journal and sinks."""
