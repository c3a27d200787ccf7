"""A server that speaks the venues' wire protocols from a seeded market, and keeps the truth.

Independent of the collector on purpose: it shares no decoder, ring or writer with it, so that
comparing a database with the simulator's ledger checks the collector against something else.
"""
