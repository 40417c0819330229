"""Optimizers and schedules from the grammar of the torch side, as optax transformations."""

from spt_jax.optim.create import Optimizer as Optimizer
from spt_jax.optim.create import build_optimizer as build_optimizer
from spt_jax.optim.create import create_optimizer as create_optimizer
from spt_jax.optim.create import weight_mask as weight_mask
from spt_jax.optim.lars import lars as lars
from spt_jax.optim.schedules import create_schedule as create_schedule
from spt_jax.optim.schedules import warmup_cosine_schedule as warmup_cosine_schedule
