"""Callbacks that change what checkpoints hold, how they load, and what is exported with them."""
