"""Commands that run something: an engine, a demo, a simulator, a benchmark, a check-up."""
