"""Runs a Lightning training on any machine: run directory, atomic checkpoints, preemption, exact resume, Hydra launch."""
