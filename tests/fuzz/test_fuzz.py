"""A short, seeded torture of every reader: one clear line or the right values, and nothing else."""

from __future__ import annotations

import pytest

from tests.fuzz.mutations import MUTATIONS, mutate
from tests.fuzz.torture import BAD, OUTCOMES, table, torture

np = pytest.importorskip("numpy")
pytest.importorskip("resource")


def test_mutations_follow_their_seed():
    for number in range(50):
        broken = [bytearray(range(256)) * 8 for _ in range(2)]
        names = [mutate(one, np.random.default_rng([3, number])) for one in broken]
        assert broken[0] == broken[1] and names[0] == names[1]
        assert broken[0] != bytearray(range(256)) * 8 or "absurd_number" in names[0]
    assert len({mutation.__name__ for mutation in MUTATIONS}) == len(MUTATIONS)


def test_readers_survive():
    results = list(torture(480, seed=20))
    assert len(results) == 480
    assert not [result for result in results if result["outcome"] in BAD]
    counts = {outcome: sum(r["outcome"] == outcome for r in results) for outcome in OUTCOMES}
    assert counts["clear"] > 200 and counts["right"] > 30
    # Text of anybody may say anything: a letter of a title, a digit of a value.
    changed = [r for r in results if r["outcome"] == "changed" and "json" not in r["kind"]]
    assert len(changed) < 15
    assert table(results).splitlines()[-1].startswith("| all | 480 |")
