"""Forward functions, for ``Module(forward=...)``."""

from spt_jax.methods.barlow_twins import barlow_twins as barlow_twins
from spt_jax.methods.byol import byol as byol
from spt_jax.methods.dino import dino as dino
from spt_jax.methods.ijepa import ijepa as ijepa
from spt_jax.methods.lejepa import lejepa as lejepa
from spt_jax.methods.mae import mae as mae
from spt_jax.methods.moco_v3 import moco_v3 as moco_v3
from spt_jax.methods.nnclr import nnclr as nnclr
from spt_jax.methods.simclr import simclr as simclr
from spt_jax.methods.simsiam import simsiam as simsiam
from spt_jax.methods.supervised import supervised as supervised
from spt_jax.methods.swav import swav as swav
from spt_jax.methods.vicreg import vicreg as vicreg
