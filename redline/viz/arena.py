"""The memory plan: which bytes of the arena each tensor has, and during which steps."""

from collections.abc import Sequence

from redline.engine import Header
from redline.viz.markup import Markup, svg, tag, text

WIDTH, HEIGHT = 1200.0, 320.0


def arena(header: Header, colours: Sequence[str]) -> Markup:
    """A box a tensor: steps to the right, bytes upward."""
    steps, whole = max(1, len(header.kernels)), max(1, header.arena_bytes)
    boxes = []
    for number, tensor in enumerate(tensor for tensor in header.tensors if tensor.space == "arena"):
        lasts = f"steps {tensor.first_step} to {tensor.last_step}"
        said = tag("title", text(f"{tensor.name}: {tensor.num_bytes} bytes at {tensor.offset}, {lasts}"))
        height = HEIGHT * tensor.num_bytes / whole
        place = {"x": WIDTH * tensor.first_step / steps, "width": WIDTH * (tensor.last_step - tensor.first_step + 1) / steps}
        top = HEIGHT * (1 - tensor.offset / whole) - height
        boxes.append(tag("rect", said, **place, y=top, height=height, fill=colours[number % len(colours)], class_="edge"))
    return svg(WIDTH, HEIGHT, *boxes, label="the memory plan")
