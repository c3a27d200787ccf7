"""The mechanism: records, rings, writer, supervisor. Knows no venue and no HTTP route."""
