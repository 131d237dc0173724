"""GPU kernels compiled ahead of time to cubins: Triton's by the ``triton`` package, those in CUDA C by NVRTC. Needs no GPU."""
