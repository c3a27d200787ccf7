"""Where rows go: one module or package a sink.

Imports `rows`.
Sinks never know each other, rings or the journal.
"""
