"""Several sequences as one call of an engine that was built ragged: the arrays behind each other, and the answers apart.

In: for each sequence its inputs, [length, ...]. Out: for each sequence its outputs: [length, ...] of those that have tokens,
[...] of those that have one row a sequence.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from redline.base.errors import InputError
from redline.engine import Header

TOKENS = 0  # the number of this dimension among those of a ragged engine


def pack(sequences: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The inputs of a ragged engine: each array [1, tokens], and ``positions``, ``starts`` and ``lengths``.

    Raises InputError for no sequences, and for one whose inputs differ in length or in name from those of the first.
    """
    if not sequences:
        raise InputError("sequences", "there are none", "", "give at least one")
    lengths = [_length(sequence, number, sequences[0]) for number, sequence in enumerate(sequences)]
    inputs = {name: np.concatenate([np.asarray(sequence[name]) for sequence in sequences])[None] for name in sequences[0]}
    ends = np.cumsum(lengths, dtype=np.int64)
    starts = ends - lengths
    positions = np.arange(ends[-1], dtype=np.int64) - np.repeat(starts, lengths)
    return {**inputs, "positions": positions[None], "starts": starts, "lengths": np.asarray(lengths, np.int64)}


def _length(sequence: Mapping[str, Any], number: int, first: Mapping[str, Any]) -> int:
    lengths = {name: len(array) for name, array in sequence.items()}
    if lengths.keys() != first.keys() or len(set(lengths.values())) != 1:
        raise InputError(f"sequence {number}", f"its lengths are {lengths}", f"{', '.join(first)}, all of one length")
    return next(iter(lengths.values()))


def unpack(header: Header, answers: Mapping[str, np.ndarray], lengths: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """The outputs of each sequence, as views of ``answers``."""
    ends = np.cumsum(lengths)
    per_token = {io.name for io in header.outputs if any(term[1 + TOKENS] for terms in io.extents for term in terms)}
    return [
        {name: array[0, end - length : end] if name in per_token else array[number] for name, array in answers.items()}
        for number, (length, end) in enumerate(zip(lengths, ends, strict=True))
    ]


def run_ragged(engine: Any, sequences: Sequence[Mapping[str, Any]]) -> list[dict[str, np.ndarray]]:
    """One call of ``engine`` for all ``sequences``; the outputs of each."""
    inputs = pack(sequences)
    return unpack(engine.header, engine.run(inputs), [int(length) for length in inputs["lengths"]])
