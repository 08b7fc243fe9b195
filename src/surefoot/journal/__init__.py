"""The journal: the append-only records of runs, and how values become bytes and come back."""

from surefoot.journal.encrypted import Encrypted
from surefoot.journal.frame import Frame, Place, Step, current_frame
from surefoot.journal.records import Kind, Record
from surefoot.journal.sealing import MissingKey
from surefoot.journal.tables import (
    MIGRATIONS,
    insert_record,
    load_record,
    load_records,
    load_records_to_show,
    load_to_show,
    take_record_id,
)
from surefoot.journal.values import Forgotten, Undecodable, Unserializable, Value, ValueCodec, ValueTooLarge, codec_of
from surefoot.store.codec import Codec

__all__ = [
    "MIGRATIONS",
    "Codec",
    "Encrypted",
    "Forgotten",
    "Frame",
    "Kind",
    "MissingKey",
    "Place",
    "Record",
    "Step",
    "Undecodable",
    "Unserializable",
    "Value",
    "ValueCodec",
    "ValueTooLarge",
    "codec_of",
    "current_frame",
    "insert_record",
    "load_record",
    "load_records",
    "load_records_to_show",
    "load_to_show",
    "take_record_id",
]
