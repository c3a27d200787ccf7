"""What is known of an instrument."""

import msgspec


class Instrument(msgspec.Struct, frozen=True):
    """An instrument as its venue describes it. Sizes are the venue's own decimal strings.

    `price_decimals` and `qty_decimals` are the exponents of the integer mantissas in the database.
    """

    venue: str
    symbol: str
    price_decimals: int
    qty_decimals: int
    base: str = ""
    quote: str = ""
    tick_size: str = ""
    lot_size: str = ""
    contract_size: str = "1"
    status: str = ""
