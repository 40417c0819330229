"""Self-supervised pretraining in JAX / Flax NNX: the same ideas, the same registry, no torch."""

from spt_jax import augment as augment
from spt_jax import backbone as backbone
from spt_jax import callbacks as callbacks
from spt_jax import checkpoint as checkpoint
from spt_jax import forward as forward
from spt_jax import losses as losses
from spt_jax import optim as optim
from spt_jax.callbacks import Callback as Callback
from spt_jax.callbacks import OnlineKNN as OnlineKNN
from spt_jax.callbacks import OnlineProbe as OnlineProbe
from spt_jax.callbacks import RankMe as RankMe
from spt_jax.data import ArrayLoader as ArrayLoader
from spt_jax.losses import NTXEntLoss as NTXEntLoss
from spt_jax.manager import Manager as Manager
from spt_jax.methods import SimCLR as SimCLR
from spt_jax.module import Module as Module
from spt_jax.optim import create_optimizer as create_optimizer
from spt_jax.trainer import Trainer as Trainer
