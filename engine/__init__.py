"""The engine: processes, shared memory, the writer and its sinks. It knows no venue."""
