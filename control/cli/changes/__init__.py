"""What changes in an engine that runs: its configuration (SIGHUP), and its code (`fts upgrade`).

Never knows how processes are replaced: that is the supervisor's.
"""
