"""Self-supervised learning objectives for PyTorch.

Values and gradients are those of the papers' formulas, in one process and on any number of ranks.
"""

from spt_losses._distributed import gather_rows as gather_rows
from spt_losses.barlow_twins import BarlowTwinsLoss as BarlowTwinsLoss
from spt_losses.barlow_twins import barlow_twins_loss as barlow_twins_loss
from spt_losses.byol import BYOLLoss as BYOLLoss
from spt_losses.byol import byol_loss as byol_loss
from spt_losses.clip import CLIPLoss as CLIPLoss
from spt_losses.clip import clip_loss as clip_loss
from spt_losses.dcl import DCLLoss as DCLLoss
from spt_losses.dcl import dcl_loss as dcl_loss
from spt_losses.feature_queue import FeatureQueue as FeatureQueue
from spt_losses.info_nce import InfoNCELoss as InfoNCELoss
from spt_losses.info_nce import info_nce_loss as info_nce_loss
from spt_losses.logit_scale import LogitScale as LogitScale
from spt_losses.memory_bank import MemoryBank as MemoryBank
from spt_losses.moco import MoCoLoss as MoCoLoss
from spt_losses.moco import moco_loss as moco_loss
from spt_losses.moco_v3 import MoCoV3Loss as MoCoV3Loss
from spt_losses.moco_v3 import moco_v3_loss as moco_v3_loss
from spt_losses.negative_cosine import NegativeCosineSimilarity as NegativeCosineSimilarity
from spt_losses.negative_cosine import negative_cosine_similarity as negative_cosine_similarity
from spt_losses.nnclr import NNCLRLoss as NNCLRLoss
from spt_losses.nnclr import nearest_rows as nearest_rows
from spt_losses.nnclr import nnclr_loss as nnclr_loss
from spt_losses.ntxent import NTXEntLoss as NTXEntLoss
from spt_losses.ntxent import ntxent_loss as ntxent_loss
from spt_losses.off_diagonal import off_diagonal as off_diagonal
from spt_losses.pirl import PIRLLoss as PIRLLoss
from spt_losses.pirl import pirl_loss as pirl_loss
from spt_losses.siglip import SigLIPLoss as SigLIPLoss
from spt_losses.siglip import siglip_loss as siglip_loss
from spt_losses.simsiam import SimSiamLoss as SimSiamLoss
from spt_losses.simsiam import simsiam_loss as simsiam_loss
from spt_losses.vcreg import VCRegLoss as VCRegLoss
from spt_losses.vcreg import vcreg_loss as vcreg_loss
from spt_losses.vicreg import VICRegLoss as VICRegLoss
from spt_losses.vicreg import vicreg_loss as vicreg_loss
from spt_losses.vicregl import VICRegLLoss as VICRegLLoss
from spt_losses.vicregl import vicregl_loss as vicregl_loss
