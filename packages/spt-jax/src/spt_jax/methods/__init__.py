"""Methods: each file holds a forward function and the class that brings its parts."""

from spt_jax.methods.barlow_twins import BarlowTwins as BarlowTwins
from spt_jax.methods.byol import BYOL as BYOL
from spt_jax.methods.dino import DINO as DINO
from spt_jax.methods.ijepa import IJEPA as IJEPA
from spt_jax.methods.lejepa import LeJEPA as LeJEPA
from spt_jax.methods.mae import MAE as MAE
from spt_jax.methods.moco_v3 import MoCoV3 as MoCoV3
from spt_jax.methods.nnclr import NNCLR as NNCLR
from spt_jax.methods.simclr import SimCLR as SimCLR
from spt_jax.methods.simsiam import SimSiam as SimSiam
from spt_jax.methods.swav import SwAV as SwAV
from spt_jax.methods.vicreg import VICReg as VICReg
