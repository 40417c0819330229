"""One file per method: its forward function and its class."""

from spt_methods.methods.barlow_twins import BarlowTwins as BarlowTwins
from spt_methods.methods.byol import BYOL as BYOL
from spt_methods.methods.simclr import SimCLR as SimCLR
from spt_methods.methods.simsiam import SimSiam as SimSiam
from spt_methods.methods.vicreg import VICReg as VICReg
