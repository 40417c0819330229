"""Self-supervised learning objectives for PyTorch: values and gradients as in the papers, on any number of ranks."""
