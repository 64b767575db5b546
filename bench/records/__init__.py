"""Result rows: schema, atomic store, frames and export. No torch."""

from bench.records.frame import export_csv, export_samples_csv, load_rows, load_runs, to_frame
from bench.records.provenance import commit_words, machine_class
from bench.records.schema import Row, data_dictionary, decode_row, encode_row
from bench.records.store import RunFolder, latest

__all__ = [
    "Row",
    "RunFolder",
    "commit_words",
    "data_dictionary",
    "decode_row",
    "encode_row",
    "export_csv",
    "export_samples_csv",
    "latest",
    "load_rows",
    "load_runs",
    "machine_class",
    "to_frame",
]
