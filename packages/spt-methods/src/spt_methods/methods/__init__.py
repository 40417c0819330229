"""One file per method: its forward function and its class."""

from spt_methods.methods.simclr import SimCLR as SimCLR
