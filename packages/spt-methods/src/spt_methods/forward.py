"""Forward functions, for ``Module(forward=...)``."""

from spt_methods.methods.barlow_twins import barlow_twins as barlow_twins
from spt_methods.methods.beit import beit as beit
from spt_methods.methods.byol import byol as byol
from spt_methods.methods.data2vec import data2vec as data2vec
from spt_methods.methods.dino import dino as dino
from spt_methods.methods.dinov2 import dinov2 as dinov2
from spt_methods.methods.ibot import ibot as ibot
from spt_methods.methods.ijepa import ijepa as ijepa
from spt_methods.methods.lejepa import lejepa as lejepa
from spt_methods.methods.mae import mae as mae
from spt_methods.methods.maskfeat import maskfeat as maskfeat
from spt_methods.methods.mocov2 import mocov2 as mocov2
from spt_methods.methods.mocov3 import mocov3 as mocov3
from spt_methods.methods.msn import msn as msn
from spt_methods.methods.nnclr import nnclr as nnclr
from spt_methods.methods.pirl import pirl as pirl
from spt_methods.methods.simclr import simclr as simclr
from spt_methods.methods.simmim import simmim as simmim
from spt_methods.methods.simsiam import simsiam as simsiam
from spt_methods.methods.supervised import supervised as supervised
from spt_methods.methods.swav import swav as swav
from spt_methods.methods.tico import tico as tico
from spt_methods.methods.vicreg import vicreg as vicreg
from spt_methods.methods.vicregl import vicregl as vicregl
from spt_methods.methods.vq_tokenizer import vq_tokenizer as vq_tokenizer
from spt_methods.methods.wmse import wmse as wmse
