"""Batched image augmentation on the accelerator, with view fan-out, for PyTorch."""
