"""What a database is like: its facts, what tables take and how they grow, what is left of the disk,
and what its user may do. Everything is read, nothing is changed.
"""
