"""Forward functions, for ``Module(forward=...)``."""

from spt_methods.methods.simclr import simclr as simclr
from spt_methods.methods.supervised import supervised as supervised
