"""Kernels in Triton, which compile for the GPU that they run on."""
