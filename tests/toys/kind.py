"""A kind of record that the product does not have, in one file: declaration, SQL, feed.

A venue settles a contract once a day at a price it computes.
"""

from typing import Any, ClassVar, Final

import numpy as np

from engine.data.kind import FLAGS, MARK_DECIMALS, TIME, Column, Kind
from shards.feeds.unnumbered import UnnumberedFeed

SETTLEMENT: Final = Kind(
    name="settlement",
    dtype=np.dtype(
        [
            ("stream", "<u4"), ("flags", "<u2"), ("_pad", "<u2"), ("ts_event", "<i8"),
            ("ts_recv", "<i8"), ("price", "<f8"), ("volume", "<f8"), ("contract", "<i8"),
        ]
    ),
    columns=(
        *TIME,
        FLAGS,
        Column("price", "int8", "price", "fixed", MARK_DECIMALS, zero_is_absent=True),
        Column("volume", "int8", "volume", "qty"),
        Column("contract", "int8", "contract"),
    ),
    id_field="ts_event",
    word="settlements",
    view="settlements",
    view_values="price, volume, contract",
)  # fmt: skip

SQL: Final = """
    CREATE TABLE settlement (
        time timestamptz NOT NULL, time_sub_us int2 NOT NULL, ts_recv int8 NOT NULL,
        stream_id int4 NOT NULL, flags int2 NOT NULL,
        price int8 NOT NULL, volume int8 NOT NULL, contract int8 NOT NULL
    );
    CREATE VIEW settlements AS
        SELECT s.stream_id, s.time,
               timestamptz 'epoch' + (s.ts_recv / 1000) * interval '1 microsecond' AS recv_time,
               nullif(s.price, 0) * 0.00000001 AS price, s.volume * i.qty_unit AS volume, s.contract
        FROM settlement s JOIN stream USING (stream_id) JOIN instrument i USING (instrument_id);
"""


class Settlements(UnnumberedFeed):
    """One row a day; what is missed while nobody listens is a gap between two times."""

    kind: ClassVar = SETTLEMENT
    _pack: ClassVar[Any] = staticmethod(SETTLEMENT.packer())

    def on_settlement(
        self, ts_event: int, ts_recv: int, price: float, volume: float, contract: int
    ) -> None:
        """Take one from the wire."""
        row = (price, volume, contract)
        if self._accept(ts_event, ts_recv, row):
            self._store(self.ring, self._pack, ts_event, ts_recv, ts_event, ts_recv, *row)
