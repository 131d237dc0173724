"""Numbers that the dimensions of a call decide, as the launches of an open plan write them in JSON.

A formula is an integer, or a list of terms that are added: ``[factor, atom, ...]``, a product. An atom is the number of a
dimension, or ``[a, b]``: the floor of formula a divided by formula b, neither of them negative.
"""

from collections.abc import Sequence
from typing import Any

MAX_DEPTH = 8
MAX_TERMS = 64


def value(formula: Any, dims: Sequence[int]) -> int:
    """The number where the dimensions have the values ``dims``; raises ZeroDivisionError for a divisor that is 0 there."""
    if isinstance(formula, int):
        return formula
    total = 0
    for factor, *atoms in formula:
        for atom in atoms:
            factor *= dims[atom] if isinstance(atom, int) else value(atom[0], dims) // value(atom[1], dims)
        total += factor
    return total


def check(formula: Any, num_dims: int, depth: int = 0) -> None:
    """Raises ValueError for what is no formula over ``num_dims`` dimensions."""
    if _is_integer(formula):
        return
    if not isinstance(formula, list) or depth > MAX_DEPTH or len(formula) > MAX_TERMS:
        raise ValueError(f"{str(formula)[:80]} is no formula")
    for term in formula:
        if not isinstance(term, list) or not term or len(term) > MAX_DEPTH or not _is_integer(term[0]):
            raise ValueError(f"{str(term)[:80]} is no term")
        for atom in term[1:]:
            _check_atom(atom, num_dims, depth)


def _check_atom(atom: Any, num_dims: int, depth: int) -> None:
    if _is_integer(atom) and 0 <= atom < num_dims:
        return
    if not isinstance(atom, list) or len(atom) != 2:
        raise ValueError(f"{str(atom)[:80]} is no dimension and no quotient of {num_dims} dimensions")
    for part in atom:
        check(part, num_dims, depth + 1)


def _is_integer(value: Any) -> bool:
    return type(value) is int and -(1 << 62) < value < 1 << 62
