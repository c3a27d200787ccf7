"""Commands on what is stored: database, live view, quarantine."""
