"""Forward functions, for ``Module(forward=...)``."""

from spt_methods.methods.barlow_twins import barlow_twins as barlow_twins
from spt_methods.methods.byol import byol as byol
from spt_methods.methods.simclr import simclr as simclr
from spt_methods.methods.simsiam import simsiam as simsiam
from spt_methods.methods.supervised import supervised as supervised
from spt_methods.methods.vicreg import vicreg as vicreg
