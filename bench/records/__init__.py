"""Result rows: schema, atomic store, what a row is of, views, vocabulary, statistics. No torch."""

from bench.records.frame import (
    defused,
    export_csv,
    export_samples_csv,
    load_rows,
    load_runs,
    result_folders,
    to_frame,
)
from bench.records.leases import Lease, LostLeaseError, check_locks
from bench.records.lines import NONE, UNKNOWN, settings, short_name
from bench.records.merging import Merged, merge_folders
from bench.records.metric_specs import METRIC_SPECS, MetricSpec
from bench.records.provenance import commit_words, machine_class
from bench.records.schema import SCHEMA_VERSION, Row, data_dictionary, decode_row, encode_row
from bench.records.store import RunFolder, latest, replace_file
from bench.records.view import SCHEME_WORDS, View, generic_view, load_views, write_view

__all__ = [
    "METRIC_SPECS",
    "NONE",
    "SCHEMA_VERSION",
    "SCHEME_WORDS",
    "UNKNOWN",
    "Lease",
    "LostLeaseError",
    "Merged",
    "MetricSpec",
    "Row",
    "RunFolder",
    "View",
    "check_locks",
    "commit_words",
    "data_dictionary",
    "decode_row",
    "defused",
    "encode_row",
    "export_csv",
    "export_samples_csv",
    "generic_view",
    "latest",
    "load_rows",
    "load_runs",
    "load_views",
    "machine_class",
    "merge_folders",
    "replace_file",
    "result_folders",
    "settings",
    "short_name",
    "to_frame",
    "write_view",
]
