"""`python -m shards.simulator`."""

from shards.simulator.main import main

if __name__ == "__main__":
    raise SystemExit(main())
