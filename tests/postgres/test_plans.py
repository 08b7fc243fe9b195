"""How PostgreSQL answers what every worker asks in each look: in few steps, whatever other topics and kinds have."""

from __future__ import annotations

from typing import Any

import surefoot as sf
from surefoot.coordination.events import tables
from surefoot.coordination.events.letters import list_groups
from surefoot.store import Tx

MANY = 2_000
"""Rows from which on a walk over all of them is no plan."""


class Planned:
    """A connection that notes how each of its queries is planned."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.plans: list[str] = []
        self.connection = self

    def execute(self, sql: str, bindings: Any = ()) -> Any:
        """Note the plan, and answer."""
        self.plans += [str(row[0]) for row in self.real.execute(f"EXPLAIN {sql}", bindings).fetchall()]
        return self.real.execute(sql, bindings)


async def test_no_look_for_events_walks_over_those_of_other_topics(url: str) -> None:
    """Catches a look of each worker that reads, by the primary key, all that other topics have published since."""

    def publish(tx: Tx) -> None:
        for start, topic in ((0, "t"), (MANY, "u")):
            tx.execute(
                "INSERT INTO events (id, topic, event_id, digest, at_ms, record)"
                " SELECT ? + n, ?, n::text, ''::bytea, 0, 1 FROM generate_series(1, ?) AS g(n)",
                (start, topic, MANY),
            )
        for topic, place in (("t", MANY), ("u", MANY), ("none", 0)):
            tx.execute(
                "INSERT INTO event_groups (topic, name, began_after, place, at_ms) VALUES (?, 'g', 0, ?, 0)",
                (topic, place),
            )
        tx.execute("ANALYZE")

    async with sf.Surefoot(url, is_worker=False) as app:
        await app.store.commit(publish, label="test")

        def look(connection: Any) -> list[str]:
            seen: Any = Planned(connection)
            assert [one.topic for one in tables.groups_with_news(seen)] == ["u"]
            assert [one.id for one in tables.events_after(seen, "t", MANY - 2, 9)] == [MANY - 1, MANY]
            assert tables.events_after(seen, "none", 0, 9) == []
            assert [(one.topic, one.behind) for one in list_groups(seen)] == [("none", 0), ("t", 0), ("u", MANY)]
            plans: list[str] = seen.plans
            return plans

        plans = app.store.read_now(look)
    assert any("events_topic" in plan for plan in plans)
    assert [plan for plan in plans if "events_pkey" in plan or "events_id" in plan] == []
