"""LARS, closed-form learning-rate schedules, and optimizer and scheduler factories."""

from spt_optim.lars import LARS as LARS
from spt_optim.layer_decay import layer_decay_groups as layer_decay_groups
from spt_optim.optimizers import create_optimizer as create_optimizer
from spt_optim.param_groups import is_bias_or_norm_param as is_bias_or_norm_param
from spt_optim.param_groups import parameter_kinds as parameter_kinds
from spt_optim.param_groups import split_params_for_weight_decay as split_params_for_weight_decay
from spt_optim.param_groups import undecayed_names as undecayed_names
from spt_optim.schedulers import create_scheduler as create_scheduler
from spt_optim.schedules import LinearWarmup as LinearWarmup
from spt_optim.schedules import LinearWarmupCosineAnnealing as LinearWarmupCosineAnnealing
from spt_optim.schedules import LinearWarmupCyclicAnnealing as LinearWarmupCyclicAnnealing
from spt_optim.schedules import LinearWarmupThreeStepsAnnealing as LinearWarmupThreeStepsAnnealing
from spt_optim.shapes import CosineDecayer as CosineDecayer
from spt_optim.values import cosine_value as cosine_value
from spt_optim.values import linear_value as linear_value
from spt_optim.values import scale_lr as scale_lr
from spt_optim.values import warmup_cosine_value as warmup_cosine_value
from spt_optim.warmup_cosine_lr import (
    LinearWarmupCosineAnnealingLR as LinearWarmupCosineAnnealingLR,
)
