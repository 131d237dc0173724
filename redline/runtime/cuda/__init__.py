"""Runs CUDA engines with the driver and ``cuda-bindings`` alone: neither Triton nor PyTorch, no compiler."""
