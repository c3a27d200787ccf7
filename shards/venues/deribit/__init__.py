"""Deribit: perpetuals, futures and options, of whatever currency.

JSON-RPC on one kind of socket. A notification's channel names kind, instrument and pace
(`trades.BTC-PERPETUAL.100ms`); trades are numbered without holes per instrument (`trade_seq`),
books chain by `prev_change_id`, liquidations are trades with a mark. Names of channels that the
venue does not know are silently missing from what a subscription is answered with.
"""

from shards.venues.deribit.venue import VENUE

__all__ = ["VENUE"]
