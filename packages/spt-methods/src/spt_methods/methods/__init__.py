"""One file per method: its forward function and its class."""

from spt_methods.methods._method import Method as Method
from spt_methods.methods._recipe import Recipe as Recipe
from spt_methods.methods.barlow_twins import BarlowTwins as BarlowTwins
from spt_methods.methods.byol import BYOL as BYOL
from spt_methods.methods.dino import DINO as DINO
from spt_methods.methods.dinov2 import DINOv2 as DINOv2
from spt_methods.methods.lejepa import LeJEPA as LeJEPA
from spt_methods.methods.mocov2 import MoCov2 as MoCov2
from spt_methods.methods.mocov3 import MoCov3 as MoCov3
from spt_methods.methods.nnclr import NNCLR as NNCLR
from spt_methods.methods.pirl import PIRL as PIRL
from spt_methods.methods.simclr import SimCLR as SimCLR
from spt_methods.methods.simsiam import SimSiam as SimSiam
from spt_methods.methods.swav import SwAV as SwAV
from spt_methods.methods.tico import TiCO as TiCO
from spt_methods.methods.vicreg import VICReg as VICReg
from spt_methods.methods.vicregl import VICRegL as VICRegL
from spt_methods.methods.wmse import WMSE as WMSE
