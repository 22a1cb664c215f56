"""Streams: data larger than memory, as arrays and tables that are read block by block and never whole."""

from chartae.training.streams.arrays import Streamed
from chartae.training.streams.memory import available_memory, parse_bytes
from chartae.training.streams.opening import stream
from chartae.training.streams.tables import StreamedTable

__all__ = ["Streamed", "StreamedTable", "available_memory", "parse_bytes", "stream"]
