"""What tiles ask for ahead: together all of the next panel, evenly, and hardly more."""

import pytest

from redline.base.dtypes import float32
from redline.kernels import dot
from redline.kernels.tile import CACHE_LINE, Ahead, PacedAhead


@pytest.mark.parametrize("tiles", [1, 2, 3, 4, 7, 14, 100])
@pytest.mark.parametrize("vectors", [1, 2, 3, 6])
@pytest.mark.parametrize("steps", [64, 512, 515])
def test_the_tiles_of_a_panel_ask_for_the_whole_next_one(tiles, vectors, steps):
    width = 16 * vectors
    ahead = Ahead.of(dot.of("", float32, float32), width, steps, 1, steps, tiles)
    panel = steps * width * 4
    assert int(ahead.part) * tiles >= panel
    asking = -(-steps // ahead.every)
    assert int(ahead.part) == asking * ahead.lines * CACHE_LINE
    if tiles > 2 and vectors > 1:  # no tile asks for twice its share, but for whole lines
        assert int(ahead.part) <= 2 * panel / tiles + CACHE_LINE * ahead.lines


@pytest.mark.parametrize("tiles", [1, 2, 5, 8, 40])
@pytest.mark.parametrize("vectors", [1, 2, 4])
def test_tiles_that_are_counted_when_called_ask_for_the_whole_panel_too(tiles, vectors):
    ahead = PacedAhead.of(dot.of("", float32, float32), 16 * vectors, 515, 1, 515, 1)
    pace, mask = max(1, -(-ahead.lines // tiles)), 0
    while ahead.even and (mask + 1) * 2 * ahead.step_bytes <= tiles * CACHE_LINE:
        mask = mask * 2 + 1
    part = pace * ((ahead.steps + mask) // (mask + 1) * CACHE_LINE)
    assert part * tiles >= ahead.panel_bytes
    assert ahead.ask_at("k0")[0] == ("__builtin_prefetch(ahead, 0, 2);" if vectors == 1 else "if ((k0 & mask) == 0) {")
