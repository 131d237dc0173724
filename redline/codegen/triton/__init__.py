"""Triton kernels compiled ahead of time to cubins; needs the ``triton`` package and no GPU."""
