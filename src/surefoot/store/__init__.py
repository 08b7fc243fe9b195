"""The store: one ordered writer over one database. Promises: `writer`; engines: `sqlite`, `postgres`."""

from surefoot.store.clock import Clock, SystemClock, new_id
from surefoot.store.connection import Connection, Rows
from surefoot.store.errors import (
    CorruptStore,
    DiskFull,
    InsideTransaction,
    NewerFormat,
    OlderFormat,
    StoreBusy,
    StoreClosed,
    StoreError,
    StoreFailed,
    UnitFailed,
    UnsafeSqlite,
    UnusablePath,
)
from surefoot.store.migrations import Migration
from surefoot.store.opening import is_on_postgres, is_there, looking_at, open_store, require_url, shown
from surefoot.store.preparing import MIGRATIONS
from surefoot.store.sqlite import SqliteStore, parse_url
from surefoot.store.store import Store
from surefoot.store.tx import Check, Put, Tx
from surefoot.store.writer import Unit

__all__ = [
    "MIGRATIONS",
    "Check",
    "Clock",
    "Connection",
    "CorruptStore",
    "DiskFull",
    "InsideTransaction",
    "Migration",
    "NewerFormat",
    "OlderFormat",
    "Put",
    "Rows",
    "SqliteStore",
    "Store",
    "StoreBusy",
    "StoreClosed",
    "StoreError",
    "StoreFailed",
    "SystemClock",
    "Tx",
    "Unit",
    "UnitFailed",
    "UnsafeSqlite",
    "UnusablePath",
    "is_on_postgres",
    "is_there",
    "looking_at",
    "new_id",
    "open_store",
    "parse_url",
    "require_url",
    "shown",
]
