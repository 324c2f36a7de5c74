"""The plan is pure: every sequence can be read back from its pack, and nothing shared is run twice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratekit.scoring import packing

# few distinct tokens, so that shared beginnings, and sequences that others begin with, are common
SEQUENCES = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple), min_size=1, max_size=25, unique=True
)


def seen_by(pack: packing.Pack, member: int) -> list[int]:
    """The tokens that the last token of a member attends to, in order, as the segments say."""
    segment = pack.segments[pack.paths[member][-1]]
    runs = [*segment.context, (segment.start, segment.length)]
    return [pack.tokens[i] for start, n in runs for i in range(start, start + n)]


@settings(max_examples=300, deadline=None)
@given(SEQUENCES, st.integers(0, 4), st.integers(1, 40))
def test_every_sequence_is_whole_in_exactly_one_pack(sequences, least_shared, budget):
    packs = packing.packs(sequences, budget, least_shared)
    assert sorted(m for p in packs for m in p.members) == list(range(len(sequences)))
    for pack in packs:
        for k, member in enumerate(pack.members):
            assert tuple(seen_by(pack, k)) == sequences[member]
            places = [pack.place(k, i) for i in range(len(sequences[member]))]
            assert tuple(pack.tokens[p] for p in places) == sequences[member]
            assert [pack.positions[p] for p in places] == list(range(len(places)))


@settings(max_examples=200, deadline=None)
@given(SEQUENCES)
def test_with_room_for_all_every_distinct_beginning_is_run_once(sequences):
    (pack,) = packing.packs(sequences, budget=10**6, least_shared=1)
    beginnings = {s[: i + 1] for s in sequences for i in range(len(s))}
    assert len(pack.tokens) == len(beginnings)


@settings(max_examples=200, deadline=None)
@given(SEQUENCES, st.integers(12, 60))
def test_budget_is_kept_unless_one_sequence_is_longer(sequences, budget):
    for least_shared in (0, 1):
        for pack in packing.packs(sequences, budget, least_shared):
            assert len(pack.tokens) <= budget


def test_sharing_less_than_asked_for_is_not_done():
    sequences = [(1, 2, 3, 4), (1, 2, 5, 6)]
    assert len(packing.packs(sequences, 100, least_shared=2)[0].tokens) == 6
    assert len(packing.packs(sequences, 100, least_shared=3)[0].tokens) == 8


def test_tokens_run_are_within_two_percent_of_the_least():
    prompts = [tuple(range(k, k + 200)) for k in range(0, 40_000, 1000)]
    sequences = [p + tuple(range(50_000 + 97 * i, 50_000 + 97 * i + 150)) for p in prompts for i in range(9)]
    least = 40 * 200 + 360 * 150
    assert sum(len(p.tokens) for p in packing.packs(sequences, 4096)) <= 1.02 * least


def test_a_tree_over_the_budget_is_cut_into_as_few_packs_as_hold_it():
    """12 branches of 150 fit beside a prompt of 200 into 2,048 tokens: 36 take three packs, the prompt in each."""
    prompt = tuple(range(200))
    sequences = [prompt + tuple(range(1000 + 151 * i, 1150 + 151 * i)) for i in range(36)]
    assert [len(p.tokens) for p in packing.packs(sequences, 2048)] == [200 + 12 * 150] * 3


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3), max_size=40))
def test_common_prefix(a, b):
    n = packing.common_prefix(a, b)
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]


@given(st.lists(st.integers(1, 500), min_size=1, max_size=200), st.integers(500, 4000))
def test_batches_hold_every_row_once_within_the_budget(lengths, budget):
    batches = packing.batches(lengths, budget)
    assert sorted(i for b in batches for i in b) == list(range(len(lengths)))
    assert all(max(lengths[i] for i in b) * len(b) <= budget for b in batches)


@pytest.mark.parametrize("n", [2, 16])
def test_shares_are_even_in_tokens_not_in_rows(n):
    costs = [10 + (i * 7919) % 700 for i in range(400)]
    loads = [sum(costs[i] for i in share) for share in packing.shares(costs, n)]
    assert sum(loads) == sum(costs)
    assert max(loads) <= 1.02 * sum(costs) / n
