"""Callbacks that judge representations while they are trained."""
