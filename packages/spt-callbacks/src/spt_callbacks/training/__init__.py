"""Callbacks that take part in training: teachers, weight decay, stopping, cached activations."""
