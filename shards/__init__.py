"""Venue connections: sockets, sequencing, books. Publishes records into rings, never writes SQL."""
