"""How an engine ended: one object from its last status, which the text, `--json`, the log and the
exit code are read from.

The equation of `engine.messages.account` is checked against what the shards counted by themselves,
kind by kind. Where a process was killed, what it alone knew is a lower bound, and said to be.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from control.cli.exits import Exit
from engine.data.names import DEFAULT_DATABASE
from engine.messages.account import Account
from engine.messages.status import EngineStatus, StreamReport
from engine.messages.streams import StreamState
from engine.messages.writer import LIVE

_TERMS = {
    "stored": "stored", "skipped": "kept out by knobs", "quarantined": "put in quarantine",
    "lost": "lost after their receipt", "elsewhere": "of other databases",
    "unheard": "committed without an answer",
    "refused": "unreadable", "dropped": "dropped by a full ring",
    "waiting": "waiting in the journal",
}  # fmt: skip
_NAMED_STREAMS = 3


@dataclass(frozen=True, slots=True)
class Ending:
    """The verdict on a run."""

    accounts: dict[str, Account]
    """By record kind; empty without a database."""
    others: dict[str, dict[str, Account]]
    """The same of each database beside the default, by its sink."""
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
        every = {each.name: status.accounts(each.name) for each in status.writer.databases}
        accounts = every[DEFAULT_DATABASE]
        shards_were_killed = status.counts_are_least or any(
            each.child.restart_count or each.child.reason for each in status.shards
        )
        writer_was_killed = bool(status.writer.child.restart_count)
        bounds = [
            *(["refused"] if shards_were_killed else []),
            *(["stored", "skipped", "quarantined", "lost"] if writer_was_killed else []),
        ]
        problems = list(_problems(status, every, shards_were_killed, writer_was_killed))
        del every[DEFAULT_DATABASE]
        return cls(
            accounts,
            every,
            "; ".join(problems),
            tuple(bounds),
            tuple(_unfinished(status, _waiting(status), delivered, streams)),
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

    def equation(self, sink: str = DEFAULT_DATABASE) -> str:
        """The equation of a database as one line: every term that there is."""
        total = Account.total(self.others.get(sink, self.accounts))
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
        wrong += [f"{sink}: {self.equation(sink)}" for sink in self.others]
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
            "databases": {
                sink: {"total": Account.total(accounts), "by_kind": accounts}
                for sink, accounts in self.others.items()
            },
        }


def _problems(
    status: EngineStatus,
    every: dict[str, dict[str, Account]],
    shards_were_killed: bool,
    writer_was_killed: bool,
) -> Iterator[str]:
    writer, counted = status.writer, status.rows_by_kind()
    for sink, accounts in every.items():
        of = "" if sink == DEFAULT_DATABASE else f"{sink}: "
        moves = writer.moves if sink == DEFAULT_DATABASE else writer.moves_of.get(sink, {})
        for kind, account in accounts.items():
            found = moves[kind].found if kind in moves else 0
            for problem in _problems_of_one(account, found, writer_was_killed):
                yield f"{of}{kind}: {problem}"
    for kind, account in every[DEFAULT_DATABASE].items():
        counts = counted.get(kind, 0)
        if counts > account.accepted or (counts < account.accepted and not shards_were_killed):
            yield f"{kind}: shards counted {counts:,} rows, their rings took {account.accepted:,}"
        together = [accounts.get(kind, Account()) for accounts in every.values()]
        if (shared := _shared(together)) is not None and shared != account.accepted:
            yield (
                f"{kind}: all databases together have {shared:,} rows, the rings took"
                f" {account.accepted:,}"
            )


def _problems_of_one(account: Account, found: int, writer_was_killed: bool) -> Iterator[str]:
    if account.left < 0:
        yield f"cursors passed {-account.left:,} rows more than there were"
    if account.unheard < 0:
        yield f"{-account.unheard:,} rows were counted and passed no cursor"
    if account.unheard > found and not writer_was_killed:
        yield f"{account.unheard - found:,} rows passed a cursor and were not counted"


def _shared(together: Sequence[Account]) -> int | None:
    """Rows that the databases have as their own, all together; None where it is not known whose
    each row was: some wait, were left by an earlier run, are lost, or nobody heard of them.
    """
    if any(each.left or each.lost or each.unheard or each.waiting for each in together):
        return None
    return sum(each.stored + each.skipped + each.quarantined for each in together)


def _waiting(status: EngineStatus) -> int:
    """Rows that the database which is furthest behind has not passed."""
    found = [Account.total(status.accounts(each.name)) for each in status.writer.databases]
    return max(each.waiting for each in found)


def _unfinished(
    status: EngineStatus, waiting: int, delivered: bool, streams: Sequence[StreamReport]
) -> Iterator[str]:
    received = sum(status.rows_by_kind().values())
    if waiting and status.writer.journal_error:
        yield (
            f"{waiting:,} rows wait for the next start, not all of them in the journal: a"
            f" reboot loses those in memory ({status.writer.journal_error})"
        )
    elif waiting:
        yield f"{waiting:,} rows wait in the journal for the next start"
    elif not delivered:
        yield "the database has not taken everything; the next start delivers the rest"
    if there := status.writer.database_rows("set_aside_rows").total():
        yield f"{there:,} rows are in quarantine (`fts quarantine`)"
    if received and status.writer.database.state == "off":
        for sink, live in zip(status.writer.live, LIVE, strict=True):
            if sink.state == "down":
                yield f"no database is wanted and {live.title} is down: {sink.error}"
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
