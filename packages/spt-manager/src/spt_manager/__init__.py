"""Runs a Lightning training: run directory, atomic checkpoints, resume, registry, Hydra launch."""

from spt_manager.allow import NotAllowedError as NotAllowedError
from spt_manager.build import BuildError as BuildError
from spt_manager.config import Settings as Settings
from spt_manager.config import config_context as config_context
from spt_manager.config import get_config as get_config
from spt_manager.config import set as set
from spt_manager.fast import make_it_fast as make_it_fast
from spt_manager.fsdp2 import FSDP2Strategy as FSDP2Strategy
from spt_manager.fsdp2 import make_fsdp2_strategy as make_fsdp2_strategy
from spt_manager.manager import Manager as Manager
from spt_manager.place import RunInUseError as RunInUseError
from spt_manager.preemption import Stopped as Stopped
from spt_manager.trackers import TrackioLogger as TrackioLogger
