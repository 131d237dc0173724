"""Settles the differences between opsets: a call of opset 7 or later becomes the same call in the newest semantics.

Each rule names the version that brought the new form; it runs on calls of older opsets and answers with a new call, or
with the outputs themselves where the new form takes several nodes.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from redline.base import shapes
from redline.base.errors import ModelError, UnsupportedError
from redline.frontend.site import Call, Site
from redline.ir import Value, constant

Rule = Callable[[Call, Site], Call | tuple[Value, ...]]


def upgrade(call: Call, site: Site) -> Call | tuple[Value, ...]:
    """``call`` in the newest semantics, or the outputs that stand for it."""
    for below, rule in _RULES.get(call.op, ()):
        if call.opset < below:
            settled = rule(call, site)
            if isinstance(settled, tuple):
                return settled
            call = settled
    return call


def _without(attrs: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in attrs.items() if key not in names}


def _attr_to_input(name: str, position: int, dtype: str = "int64", scalar: bool = False) -> Rule:
    """An attribute that became input ``position``; absent stays absent."""

    def rule(call: Call, site: Site) -> Call:
        inputs = list(call.inputs) + [None] * (position + 1 - len(call.inputs))
        if name in call.attrs:
            array = np.array(call.attrs[name], dtype)
            inputs[position] = constant(array if scalar else array.reshape(-1))
        while inputs and inputs[-1] is None:
            inputs.pop()
        return replace(call, inputs=tuple(inputs), attrs=_without(call.attrs, name))

    return rule


def _float_attr_to_input(name: str, position: int, default: float | None = None) -> Rule:
    """A float attribute that became an input of the data's own type."""

    def rule(call: Call, site: Site) -> Call:
        x = call.input(0)
        bound = call.attrs.get(name, default)
        if bound is None or x is None:
            return replace(call, attrs=_without(call.attrs, name))
        inputs = list(call.inputs) + [None] * (position + 1 - len(call.inputs))
        inputs[position] = constant(np.array(bound, x.dtype.numpy))
        return replace(call, inputs=tuple(inputs), attrs=_without(call.attrs, name))

    return rule


def _flattened_softmax(call: Call, site: Site) -> Call | tuple[Value, ...]:
    """softmax over the axes ``axis..`` together: Reshape to one last axis, softmax there, Reshape back."""
    x = call.input(0)
    if x is None:
        return call
    axis = shapes.axis_index(int(call.attrs.get("axis", 1)), max(len(x.shape), 1), site.label)
    if axis == len(x.shape) - 1 or all(dim == 1 for dim in x.shape[axis + 1 :]):
        return replace(call, attrs={"axis": axis})
    shape = shapes.static(x.shape, site.label)
    flat = site.make("Reshape", x, constant(np.array([*shape[:axis], shapes.size(shape[axis:])])))
    return (site.make("Reshape", site.make(call.op, flat, axis=-1), constant(np.array(shape))),)


def _split_count(call: Call, site: Site) -> Call:
    """Split into equal parts did not say how many: as many as it has outputs."""
    if call.input(1) is not None:
        return call
    if call.attrs.get("num_outputs", call.num_outputs) != call.num_outputs:
        seen = f"Split into {call.attrs['num_outputs']} parts with {call.num_outputs} outputs"
        raise ModelError(site.label, seen, "one output a part")
    return replace(call, attrs={**call.attrs, "num_outputs": call.num_outputs})


def _upsample(call: Call, site: Site) -> Call:
    """Upsample is Resize with asymmetric coordinates and rounding down."""
    mode = {"bilinear": "linear"}.get(call.attrs.get("mode", "nearest"), call.attrs.get("mode", "nearest"))
    scales = call.input(1)
    if "scales" in call.attrs:
        scales = constant(np.array(call.attrs["scales"], np.float32))
    attrs = {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return replace(call, op="Resize", inputs=(call.input(0), None, scales), attrs=attrs, opset=13)


def _resize_13(call: Call, site: Site) -> Call:
    """Opset 11 had one more coordinate mode, and gave empty tensors for absent inputs."""
    if call.attrs.get("coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        raise UnsupportedError(site.label, "Resize with tf_half_pixel_for_nn", "later opsets dropped it", "export for opset 13")
    return call


def _resize_any(call: Call, site: Site) -> Call:
    """Empty roi, scales and sizes are absent ones."""
    inputs = [v if i == 0 or v is None or v.shape != (0,) else None for i, v in enumerate(call.inputs)]
    return replace(call, inputs=tuple(inputs))


def _dropout(call: Call, site: Site) -> tuple[Value, ...]:
    """Inference: the data itself and a mask of ones. Training mode is refused unless its ratio is 0."""
    x, ratio, training = (call.input(i) for i in range(3))
    if x is None:
        raise ModelError(site.label, "Dropout lacks input 0")
    is_training = training is not None and (training.array is None or bool(np.any(training.array)))
    no_ratio = ratio is not None and ratio.array is not None and not np.any(ratio.array)
    if is_training and not no_ratio:
        seen = "Dropout in training mode is random"
        raise UnsupportedError(site.label, seen, "an engine is for inference", "export in evaluation mode")
    if call.num_outputs == 1:
        return (x,)
    return x, site.make("ConstantOfShape", site.make("Shape", x), value=np.array([True]))


def _batch_norm(call: Call, site: Site) -> Call:
    """Before opset 14 the number of outputs chose the training mode; before opset 9 ``spatial`` chose the statistics."""
    if call.attrs.get("spatial", 1) != 1:
        raise UnsupportedError(site.label, "BatchNormalization with spatial=0", "later opsets dropped it", "export for opset 9")
    if call.num_outputs > 1:
        raise UnsupportedError(site.label, "BatchNormalization in training mode", "", "export in evaluation mode")
    return replace(call, attrs=_without(call.attrs, "spatial"))


def _group_norm(call: Call, site: Site) -> Call:
    """Scale and bias had one value a group, now one a channel."""
    x, scale, bias = (call.input(i) for i in range(3))
    groups = int(call.attrs.get("num_groups", 0))
    if x is None or scale is None or bias is None or groups < 1 or len(x.shape) < 2 or not isinstance(x.shape[1], int):
        return call
    return replace(call, inputs=(x, *(_per_channel(v, groups, x.shape[1], site) for v in (scale, bias))))


def _per_channel(v: Value, groups: int, channels: int, site: Site) -> Value:
    column = site.make("Reshape", v, constant(np.array([groups, 1])))
    wide = site.make("Expand", column, constant(np.array([groups, channels // groups])))
    return site.make("Reshape", wide, constant(np.array([channels])))


def _grid_sample(call: Call, site: Site) -> Call:
    names = {"bilinear": "linear", "bicubic": "cubic"}
    mode = call.attrs.get("mode", "bilinear")
    return replace(call, attrs={**call.attrs, "mode": names.get(mode, mode)})


def _dft(call: Call, site: Site) -> Call:
    axis = constant(np.array(int(call.attrs.get("axis", 1))))
    inputs = (*call.inputs, *[None] * (2 - len(call.inputs)), axis)
    return replace(call, inputs=inputs, attrs=_without(call.attrs, "axis"))


def _roi_align(call: Call, site: Site) -> Call:
    """Before opset 16 regions were not shifted by half a pixel."""
    return replace(call, attrs={**call.attrs, "coordinate_transformation_mode": "output_half_pixel"})


def _renamed(op: str) -> Rule:
    return lambda call, site: replace(call, op=op)


_ALWAYS = 1 << 30
_axes_13 = ((13, _attr_to_input("axes", 1)),)
_axes_18 = ((18, _attr_to_input("axes", 1)),)
_softmax = ((13, _flattened_softmax),)
_slice = tuple((10, _attr_to_input(name, i)) for i, name in enumerate(("starts", "ends", "axes"), 1))

_RULES: dict[str, tuple[tuple[int, Rule], ...]] = {
    "Squeeze": _axes_13,
    "Unsqueeze": _axes_13,
    "ReduceSum": _axes_13,
    **{f"Reduce{kind}": _axes_18 for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")},
    "Split": ((13, _attr_to_input("split", 1)), (_ALWAYS, _split_count)),
    "Clip": ((11, _float_attr_to_input("min", 1)), (11, _float_attr_to_input("max", 2))),
    "Pad": ((11, _attr_to_input("pads", 1)), (11, _float_attr_to_input("value", 2))),
    "Slice": _slice,
    "TopK": ((10, _attr_to_input("k", 1)),),
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Hardmax": _softmax,
    "Dropout": ((_ALWAYS, _dropout),),
    "Upsample": ((_ALWAYS, _upsample),),
    "Resize": ((11, _upsample), (13, _resize_13), (_ALWAYS, _resize_any)),
    "BatchNormalization": ((14, _batch_norm),),
    "GroupNormalization": ((21, _group_norm),),
    "GridSample": ((20, _grid_sample),),
    "DFT": ((20, _dft),),
    "RoiAlign": ((16, _roi_align),),
    "Scatter": ((_ALWAYS, _renamed("ScatterElements")),),
}
