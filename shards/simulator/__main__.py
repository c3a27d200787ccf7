"""`python -m shards.simulator`."""

import gc
import importlib


def run() -> int:
    """What is imported lives for ever: the garbage collector does not look at it, now or later."""
    gc.disable()
    module = importlib.import_module("shards.simulator.main")
    gc.freeze()
    gc.enable()
    return int(module.main())


if __name__ == "__main__":
    raise SystemExit(run())
