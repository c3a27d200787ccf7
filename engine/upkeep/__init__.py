"""The upkeep process: days made ahead, compressed, indexed, archived and dropped; bars; sizes.

Works on sessions and in a process of its own, so that whatever it waits for, the writer does not.
Each task is one module and one line in `TASKS`. Imports `start` and below, never the writer.
"""
