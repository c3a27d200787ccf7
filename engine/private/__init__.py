"""Servers of our own, in the state directory, for those who bring none."""
