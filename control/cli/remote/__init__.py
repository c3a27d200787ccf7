"""Commands asked of a running engine, over its API."""

from control.cli.remote import health, instruments, limiters, streams

COMMANDS = (streams, instruments, limiters, health)
