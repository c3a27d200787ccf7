"""Binance's markets: `linear` (USD-M futures), `inverse` (COIN-M futures) and `spot`.

They speak one protocol: `messages` and `decode` are of all three, `answers` and `instruments` read
what REST says, `market` has what else they share. Aggregate trade ids (`a`) grow by one per symbol
everywhere; times are milliseconds. Depth events of futures chain by `pu` (previous `u` of this
stream), those of spot by their ids, which have no hole. Of futures a socket belongs to one category
since 2026-04: book data on `/public`, the rest on `/market`; a subscription on the wrong one is
acknowledged and stays silent.
"""
