"""The store: one ordered writer over one database file. See `writer` for the promises, `sqlite` for the engine."""

from surefoot.store.clock import Clock, SystemClock, new_id
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
from surefoot.store.preparing import MIGRATIONS
from surefoot.store.readonly import looking_at
from surefoot.store.sqlite import Store, open_store, parse_url
from surefoot.store.tx import Put, Tx
from surefoot.store.writer import Unit

__all__ = [
    "MIGRATIONS",
    "Clock",
    "CorruptStore",
    "DiskFull",
    "InsideTransaction",
    "Migration",
    "NewerFormat",
    "OlderFormat",
    "Put",
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
