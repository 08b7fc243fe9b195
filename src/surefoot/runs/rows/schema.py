"""The format of the tables of runs, `runs`, `waiters` and `inbox`, and how it came to be."""

from __future__ import annotations

from surefoot.store import Migration

MIGRATIONS = (
    Migration(
        "runs",
        1,
        "runs and inbox",
        """CREATE TABLE runs (
            id INTEGER PRIMARY KEY,
            run_id TEXT NOT NULL UNIQUE,
            kind TEXT NOT NULL,
            state INTEGER NOT NULL,
            epoch INTEGER NOT NULL,
            holder INTEGER,
            digest BLOB NOT NULL,
            parent INTEGER,
            waiting_for TEXT,
            reason TEXT NOT NULL DEFAULT '',
            wake_at_ms INTEGER,
            deadline_ms INTEGER,
            takeovers INTEGER NOT NULL DEFAULT 0,
            progress INTEGER NOT NULL DEFAULT 0,
            created_at_ms INTEGER NOT NULL,
            ended_at_ms INTEGER,
            ended INTEGER);
        CREATE INDEX runs_open ON runs (state, wake_at_ms) WHERE state <= 3;
        CREATE INDEX runs_parent ON runs (parent) WHERE parent IS NOT NULL;
        CREATE TABLE inbox (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            run INTEGER NOT NULL,
            name TEXT NOT NULL,
            dedupe TEXT,
            sent_by TEXT NOT NULL,
            at_ms INTEGER NOT NULL,
            payload BLOB);
        CREATE INDEX inbox_run ON inbox (run);
        CREATE UNIQUE INDEX inbox_dedupe ON inbox (run, name, dedupe) WHERE dedupe IS NOT NULL""",
    ),
    Migration(
        "runs",
        2,
        "waiters",
        # What a parked run waits for, by row: ('effect', id) of the ledger or ('run', id); written when it is parked,
        # deleted when it is woken or claimed.
        """CREATE TABLE waiters (
            run INTEGER NOT NULL,
            kind TEXT NOT NULL,
            target INTEGER NOT NULL,
            PRIMARY KEY (kind, target, run)) WITHOUT ROWID;
        CREATE INDEX waiters_run ON waiters (run)""",
    ),
    Migration(
        "runs",
        3,
        "priorities and lanes",
        # What is asked of them: the next runs of a kind that wait for a worker, in order; how many of a kind are executed;
        # the next run of a lane; how many of a lane have begun.
        """ALTER TABLE runs ADD COLUMN priority INTEGER NOT NULL DEFAULT 3;
        ALTER TABLE runs ADD COLUMN lane TEXT;
        CREATE INDEX runs_next ON runs (kind, state, priority, id) WHERE state <= 2;
        CREATE INDEX runs_lane ON runs (lane, state, priority, id) WHERE lane IS NOT NULL AND state <= 3""",
    ),
    Migration(
        "runs",
        4,
        "times and suspects of a kind",
        # What is asked of them: the next run of a kind whose time has come, though others have such runs that nobody takes
        # up; the next suspect of a kind, which stands somewhere among all that wait.
        """CREATE INDEX runs_timed ON runs (kind, state, wake_at_ms, id) WHERE state <= 3 AND wake_at_ms >= 0;
        CREATE INDEX runs_suspect ON runs (kind, priority, id) WHERE state = 1 AND takeovers >= 3""",
    ),
)
