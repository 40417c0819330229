"""Callbacks that report on a run."""
