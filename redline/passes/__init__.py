"""Graph -> graph: what makes a model simpler, recognisable and laid out for the kernels. pipeline.py is the only ordering."""

from redline.passes.pipeline import optimize, use_integers

__all__ = ["optimize", "use_integers"]
