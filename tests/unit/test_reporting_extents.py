"""What a report says of larger extents, of rows with known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.records import Row, to_frame
from bench.reporting.answers import answers
from bench.reporting.blocks.extents import extents
from bench.reporting.build import frame_of
from protocols.resolution_transfer import VIEW

HARD = 2.0 * np.random.default_rng(5).normal(size=4)
LOSS = {(64, "whole"): 0.0, (256, "whole"): -1.0, (256, "scaled"): 0.25, (256, "tiled"): 0.125}
SECONDS = {"whole": 1.0, "scaled": 2.5, "tiled": 1.5}


def rows(seeds):
    found = []
    for (extent, variant), gain in LOSS.items():
        for seed in seeds:
            noise = 0.01 * np.random.default_rng([extent, seed]).normal(size=4)
            config = {"extent": extent, "variant": variant, "ground": 256}
            config["data"] = {"fingerprint": "d"}
            common = Row(
                run_id="r", protocol="resolution_transfer", kind="accuracy", method="diffusion",
                backbone="fno", dataset="sample-4", split="reduced", size=256, seed=seed,
                cell_id=f"{extent}{variant}{seed}", config=config,
            )  # fmt: skip
            samples = (44 + HARD + noise + gain).tolist()
            value = float(np.mean(samples))
            found += [
                replace(common, metric="PSNR", unit="dB", direction="higher", samples=samples,
                        value=value, n=4),
                replace(common, kind="cost", metric="latency_image", unit="s", direction="lower",
                        samples=[SECONDS[variant]], value=SECONDS[variant], n=1),
                replace(common, kind="cost", metric="flops_image", unit="GFLOP",
                        direction="lower", value=65.536),
            ]  # fmt: skip
    return found


def test_each_variant_stands_against_the_smallest_extent_whole():
    [section] = extents(to_frame(rows(range(3))), {}, VIEW)
    table = section.tables[0]
    assert list(table.cells["extent"]) == ["64", "256"]
    first, last = table.cells.to_dict("records")
    assert first["whole against whole at 64"] == "–" == first["scaled, PSNR (dB) ↑"]
    assert last["whole against whole at 64"].startswith("-0.999") and (
        " worse" in last["whole against whole at 64"]
    )
    assert " better" in last["scaled against whole at 64"]
    # Seconds and GFLOP of 256 x 256 pixels, by hand: 1 s / 65536 = 15.26 us.
    assert last["time, µs/pixel: whole, scaled, tiled"] == "15.26 / 38.15 / 22.89"
    assert last["kFLOP/pixel: whole, scaled, tiled"] == "1000 / 1000 / 1000"


def test_the_answer_names_the_remedy_that_wins_and_its_price():
    said = " ".join(answers(frame_of(rows([0]), {}), {}, VIEW))
    assert "fno at 256 pixels, PSNR against whole at 64 on the same images of 256: whole -" in said
    assert "The highest mean is that of scaled, by 0.1" in said
    assert "in 2.5 times the time of whole." in said


@pytest.mark.parametrize("kept", [(64, "whole"), (256, "tiled")])
def test_nothing_is_said_of_one_line(kept):
    alone = [r for r in rows([0]) if (r.config["extent"], r.config["variant"]) == kept]
    [section] = extents(to_frame(alone), {}, VIEW)
    assert not any("The highest mean" in note for note in section.tables[0].notes)


def test_means_are_of_the_seeds_that_every_line_has():
    whole = rows([0, 1])
    ahead = [r for r in whole if r.seed == 0 or r.config["extent"] == 64]
    for r in (r for r in ahead if r.seed == 1 and r.metric == "PSNR"):
        ahead[ahead.index(r)] = replace(r, value=r.value + 5, samples=[x + 5 for x in r.samples])
    both = (extents(to_frame(of), {}, VIEW) for of in (rows([0]), ahead))
    tables = [section.tables[0] for sections in both for section in sections]
    column = "whole, PSNR (dB) ↑"
    assert list(tables[0].cells[column]) == list(tables[1].cells[column])
    assert "Means and the figure are of the seeds that all lines have: 0." in tables[1].notes
