"""Broken checkpoints from a seed: right weights, the same again, or one line, and nothing else."""

from __future__ import annotations

from tests.fuzz.checkpoints import BAD, cases, table


def test_a_short_seeded_set_of_broken_checkpoints():
    found, bad = table(count=150, seed=20)
    assert not bad, "\n".join(bad)
    assert not any(counts[name] for counts in found.values() for name in BAD)
    for outcome in ("right", "made anew", "refused"):
        assert sum(counts[outcome] for counts in found.values()) >= 5


def test_cases_depend_on_the_seed_alone():
    assert list(cases(20, 3)) == list(cases(30, 3))[:20] != list(cases(20, 4))
