"""Where accuracy along the mode axis is best, beside where the pass band of the MTF ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from bench.config.passband import pass_band_modes
from bench.records import View
from bench.reporting.against import against_reference
from bench.reporting.html import Section
from bench.reporting.shown import axis_column, notes_of, of_accuracy, show
from bench.reporting.tables import VERDICT_NOTE, Table, format_verdict
from bench.reporting.text import format_number

__all__ = ["peaks"]

_METRIC = "PSNR"
_SETTING = ["dataset", "config.data.ratio", "config.patch"]


def peaks(
    frame: pd.DataFrame, runs: Mapping[str, Mapping[str, Any]], view: View
) -> Iterator[Section]:
    """Yield the best mode count of each ratio and patch, and the one that the pass band says."""
    frame = of_accuracy(frame, view)
    axis = axis_column(frame, view)
    if axis is None or not set(_SETTING) <= set(frame):
        return
    rows = frame[(frame["kind"] == "accuracy") & (frame["status"] == "ok")]
    rows = rows[(rows["metric"] == _METRIC) & rows["samples"].notna() & rows[axis].notna()]
    cells, values, followed = [], [], []
    for (dataset, ratio, patch), of in rows.groupby(_SETTING, sort=False):
        means = of.groupby(axis)["value"].mean()
        counts, best = sorted(means.index), means.idxmax()
        expected = pass_band_modes(int(patch), int(ratio))
        nearest = min(counts, key=lambda m: abs(m - expected))
        near = abs(counts.index(best) - counts.index(nearest))
        followed.append(near <= 1)
        against = against_reference(
            show(of, view), replace(view, reference={str(view.axis): nearest}), [_METRIC]
        )
        lines = show(of, view).lines
        found = [
            v for (line, _), (_, v) in against.verdicts.items() if lines.loc[line, axis] == best
        ]
        label = {"dataset": dataset, "ratio": int(ratio), "patch": int(patch)}
        cells.append(
            {name: str(value) for name, value in label.items()}
            | {
                "pass band ends at mode": f"{expected:g}",
                "modes tried": ", ".join(f"{m:g}" for m in counts),
                "best": f"{best:g}",
                f"{_METRIC} (dB)": ", ".join(format_number(x, "accuracy") for x in means[counts]),
                f"best against the pass band's ({_METRIC})": (
                    format_verdict(found[0]) if found else "the same count"
                ),
            }
        )
        values.append(label | {"expected": expected, "best": best, "steps_apart": near})
    if cells:
        said = f"The best count is the pass band's, or the next one tried, in {sum(followed)} of "
        notes = [f"{said}{len(followed)} settings.", VERDICT_NOTE, *notes_of(rows, view)]
        table = Table.of(
            f"{view.study}-peaks", view.title, pd.DataFrame(cells), pd.DataFrame(values), notes
        )
        yield Section(view.study, [table])
