"""The fast chunker cuts where the rule, followed byte by byte, cuts."""

from __future__ import annotations

import hashlib

import pytest
from cvmfs_repository import cut
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.cvmfs import chunker
from publisher.cvmfs.chunker import ChunkRule, cuts_behind, first_hit, hits
from publisher.errors import RepositoryError


def by_the_rule(data: bytes, rule: ChunkRule) -> list[int]:
    """Sizes of chunks, followed byte by byte."""
    sizes, last = [], 0
    while last + rule.least < len(data):
        x = 0
        for byte in data[last + rule.least - 32 : last + rule.least]:
            x = ((x << 1) ^ byte) & 0xFFFFFFFF
        for position in range(last + rule.least, len(data)):
            x = ((x << 1) ^ data[position]) & 0xFFFFFFFF
            if position == last + rule.most or hits(x, rule.threshold):
                sizes.append(position - last)
                last = position
                break
        else:
            break
    return [*sizes, len(data) - last] if last < len(data) else sizes


RULES = (
    ChunkRule(least=65536, average=131072, most=262144),
    ChunkRule(least=64, average=128, most=256),
    ChunkRule(least=32, average=32, most=32),
    ChunkRule(least=1000, average=70_000, most=200_000),
    ChunkRule(least=4000, average=8_000_000, most=16_000_000),
)
DATA = {
    "random": hashlib.shake_128(b"chunker").digest(400_000),
    "zeros": bytes(300_000),
    "ones": b"\xff" * 300_000,
    "text": b"some text that comes again and again\n" * 8000,
    "none": b"",
    "short": b"x" * 31,
    "exact": b"y" * 65536,
}


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("name", DATA)
def test_cuts_are_those_of_the_rule(rule, name):
    data = DATA[name]
    assert cut(data, rule) == by_the_rule(data, rule)


@given(st.binary(min_size=33, max_size=300), st.integers(1, 1 << 31))
@settings(max_examples=300, deadline=None)
def test_no_hit_is_missed(data, threshold):
    found = first_hit(data, 32, len(data), threshold)
    x = 0
    for position, byte in enumerate(data):
        x = ((x << 1) ^ byte) & 0xFFFFFFFF
        if position >= 32 and hits(x, threshold):
            assert found == position
            return
    assert found == -1


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (0x7FFFFFFF, True),
        (0x7FFFFFFF - 510, True),
        (0x7FFFFFFF - 511, False),
        (0x7FFFFFFF + 510, True),
        (0x7FFFFFFF + 511, False),
        (0xFFFFFFFF, True),
        (0xFFFFFFFE, False),
        (0, False),
    ],
)
def test_hits_of_the_default_sizes(x, expected):
    assert ChunkRule().threshold == 511
    assert hits(x, 511) is expected


def test_fixed_sizes():
    rule = ChunkRule(least=100, average=200, most=300, fixed=True)
    assert cut(bytes(500), rule) == [200, 200, 100]


@pytest.mark.parametrize("step", [1, 33, 1000, 70_000])
def test_how_much_is_read_at_once_does_not_matter(monkeypatch, step):
    monkeypatch.setattr(chunker, "_STEP", step)
    rule, data = RULES[0], DATA["random"]
    assert cut(data[:200_000], rule) == by_the_rule(data[:200_000], rule)


def test_a_file_that_became_shorter_is_cut_to_its_size():
    rule, data = RULES[0], DATA["random"][:100_000]
    assert sum(cut(data, rule, 400_000)) == 400_000


def test_where_a_chunk_ends_can_be_seen_without_looking_at_all_of_it():
    rule, data = RULES[0], DATA["random"]
    start = 0
    for length in by_the_rule(data, rule)[:-1]:
        ends = [
            each
            for each in range(max(rule.least, length - 500), min(rule.most, length + 500) + 1)
            if cuts_behind(lambda at, count: data[at : at + count], start, each, rule)
        ]
        assert length in ends
        assert len(ends) <= 2
        start += length
    assert not cuts_behind(lambda at, count: data[at : at + count], start, len(data) - start, rule)


@pytest.mark.parametrize("sizes", [(31, 40, 50), (100, 99, 200), (100, 200, 199)])
def test_sizes_must_be_in_order(sizes):
    least, average, most = sizes
    with pytest.raises(RepositoryError, match="are not in order, or below 32"):
        ChunkRule(least=least, average=average, most=most)
