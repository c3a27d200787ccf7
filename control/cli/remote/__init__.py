"""Commands asked of a running engine, over its API."""
