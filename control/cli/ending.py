"""How an engine ended: one object from its last status, which the text, `--json`, the log and the
exit code are read from.

The equation of `engine.messages.account` is checked against what the shards counted by themselves,
kind by kind. Where a process was killed, what it alone knew is a lower bound, and said to be.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from control.cli.exits import Exit
from engine.messages.account import Account
from engine.messages.status import EngineStatus, StreamReport
from engine.messages.streams import StreamState

_TERMS = {
    "stored": "stored", "skipped": "kept out by knobs", "quarantined": "put in quarantine",
    "lost": "lost after their receipt", "unheard": "committed without an answer",
    "refused": "unreadable", "dropped": "dropped by a full ring",
    "waiting": "waiting in the journal",
}  # fmt: skip
_NAMED_STREAMS = 3


@dataclass(frozen=True, slots=True)
class Ending:
    """The verdict on a run."""

    accounts: dict[str, Account]
    """By record kind; empty without a database."""
    problem: str
    """Why the equation does not hold; empty when it does."""
    lower_bounds: tuple[str, ...]
    """Terms of which a killed process may have known more."""
    unfinished: tuple[str, ...]
    """What did not come to its end, each as a clause."""

    @classmethod
    def of(
        cls, status: EngineStatus, *, delivered: bool, streams: Sequence[StreamReport] = ()
    ) -> "Ending":
        """From the last status, whether everything was delivered, and the streams as they were
        before they were ended.
        """
        accounts = status.accounts()
        shards_were_killed = any(each.child.restart_count or each.child.reason
                                 for each in status.shards)  # fmt: skip
        writer_was_killed = bool(status.writer.child.restart_count)
        bounds = [
            *(["refused"] if shards_were_killed else []),
            *(["stored", "skipped", "quarantined", "lost"] if writer_was_killed else []),
        ]
        problems = _problems(status, accounts, shards_were_killed, writer_was_killed)
        total = Account.total(accounts)
        return cls(
            accounts,
            "; ".join(problems),
            tuple(bounds),
            tuple(_unfinished(status, total, delivered, streams)),
        )

    @property
    def total(self) -> Account:
        """All kinds together."""
        return Account.total(self.accounts)

    @property
    def exit_code(self) -> Exit:
        """What the shell is told."""
        if self.problem:
            return Exit.FAILED
        return Exit.UNFINISHED if self.unfinished else Exit.OK

    def equation(self) -> str:
        """The equation as one line: every term that there is."""
        total = self.total
        left = f" + left over {total.left:,}" if total.left else ""
        terms = " + ".join(
            f"{text} {'at least ' if name in self.lower_bounds else ''}{getattr(total, name):,}"
            for name, text in _TERMS.items()
            if getattr(total, name) or name == "stored"
        )
        return f"received {total.received:,}{left} = {terms}"

    def lines(self) -> list[str]:
        """What is to be said beside the equation."""
        wrong = [f"the equation does not hold: {self.problem}"] if self.problem else []
        return wrong + [f"unfinished: {each}" for each in self.unfinished]

    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "holds": not self.problem,
            "problem": self.problem,
            "lower_bounds": self.lower_bounds,
            "unfinished": self.unfinished,
            "total": self.total,
            "by_kind": self.accounts,
        }


def _problems(
    status: EngineStatus,
    accounts: dict[str, Account],
    shards_were_killed: bool,
    writer_was_killed: bool,
) -> Iterator[str]:
    counted = status.rows_by_kind()
    for kind, account in accounts.items():
        found = status.writer.moves[kind].found if kind in status.writer.moves else 0
        counts = counted.get(kind, 0)
        if account.left < 0:
            yield f"{kind}: cursors passed {-account.left:,} rows more than there were"
        if account.unheard < 0:
            yield f"{kind}: {-account.unheard:,} rows were counted and passed no cursor"
        if account.unheard > found and not writer_was_killed:
            yield f"{kind}: {account.unheard - found:,} rows passed a cursor and were not counted"
        if counts > account.accepted or (counts < account.accepted and not shards_were_killed):
            yield f"{kind}: shards counted {counts:,} rows, their rings took {account.accepted:,}"


def _unfinished(
    status: EngineStatus, total: Account, delivered: bool, streams: Sequence[StreamReport]
) -> Iterator[str]:
    received = sum(status.rows_by_kind().values())
    if total.waiting and status.writer.journal_error:
        yield (
            f"{total.waiting:,} rows wait for the next start, not all of them in the journal: a"
            f" reboot loses those in memory ({status.writer.journal_error})"
        )
    elif total.waiting:
        yield f"{total.waiting:,} rows wait in the journal for the next start"
    elif not delivered:
        yield "the database has not taken everything; the next start delivers the rest"
    if there := sum(status.writer.database.set_aside_rows.values()):
        yield f"{there:,} rows are in quarantine (`fts quarantine`)"
    redis = status.writer.redis
    if received and status.writer.database.state == "off" and redis.state == "down":
        yield f"no database is wanted and Redis is down: {redis.error}"
    failed = [each for each in streams if each.state is StreamState.FAILED]
    if failed:
        names = "; ".join(
            f"{each.venue}/{each.symbol}/{each.kind}: {each.reason}"
            for each in failed[:_NAMED_STREAMS]
        )
        more = f"; and {len(failed) - _NAMED_STREAMS} more" if len(failed) > _NAMED_STREAMS else ""
        yield f"{len(failed)} of {len(streams)} streams failed: {names}{more}"
    if streams and not received and all(each.state is not StreamState.LIVE for each in streams):
        yield "no stream has delivered anything"
