"""Commands on what is stored: PostgreSQL, Redis, quarantine."""
