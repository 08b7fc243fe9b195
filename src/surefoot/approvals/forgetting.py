"""What retention takes away of approvals: the arguments of questions that were decided long ago. Who decided what stays.

What is pending or approved loses nothing, and neither does the run whose record its question is.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw
import msgspec

from surefoot.approvals.states import State
from surefoot.effects.ledger import Call, decode_call, encode_call
from surefoot.journal import load_record
from surefoot.journal.tables import rewrite_record
from surefoot.store import Tx

GONE = Call(effect="?", doubt="", key="its values were deleted", scope="", arguments=msgspec.Raw(b"null"))
"""What is shown of a question whose run's records have gone."""


def kept_runs(connection: apsw.Connection) -> set[int]:
    """Return the runs whose questions may still be decided or used."""
    rows = connection.execute(
        "SELECT DISTINCT run FROM approvals JOIN askers ON approval = approvals.id"
        f" WHERE state <= {State.APPROVED.value} AND run IS NOT NULL"
    )
    return {int(str(row[0])) for row in rows}


def find_old(connection: apsw.Connection, after: int, before_ms: int, limit: int) -> tuple[int, list[int]]:
    """Return the last approval looked at, and the records of questions from outside runs that may lose their arguments."""
    rows = connection.execute(
        "SELECT a.id, a.record FROM approvals a JOIN journal j ON j.id = a.record WHERE a.id > ? AND j.run IS NULL"
        f" AND a.state > {State.APPROVED.value} AND a.asked_at_ms < ? ORDER BY a.id LIMIT ?",
        (after, before_ms, limit),
    ).fetchall()
    records = [int(str(record)) for _, record in rows]
    return (int(str(rows[-1][0])) if rows else after), [
        one for one in records if not _call(connection, one).forgotten_at_ms
    ]


def forget(tx: Tx, records: Sequence[int]) -> None:
    """Delete the arguments of these questions."""
    for record in records:
        call = msgspec.structs.replace(
            _call(tx.connection, record), arguments=msgspec.Raw(b"null"), forgotten_at_ms=tx.now_ms
        )
        rewrite_record(tx, record, None, encode_call(call))


def _call(connection: apsw.Connection, record: int) -> Call:
    return decode_call(load_record(connection, record).body or b"")
