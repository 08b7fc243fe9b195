"""The store: one ordered writer over one database file. See `writer` for the promises, `sqlite` for the engine."""

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
from surefoot.store.opening import open_store
from surefoot.store.preparing import MIGRATIONS
from surefoot.store.readonly import looking_at
from surefoot.store.sqlite import SqliteStore, parse_url
from surefoot.store.store import Store
from surefoot.store.tx import Put, Tx
from surefoot.store.writer import Unit

__all__ = [
    "MIGRATIONS",
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
    "looking_at",
    "new_id",
    "open_store",
    "parse_url",
]
