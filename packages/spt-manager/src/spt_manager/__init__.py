"""Runs a Lightning training: run directory, atomic checkpoints, resume, registry, Hydra launch."""

from spt_manager.config import Settings as Settings
from spt_manager.config import config_context as config_context
from spt_manager.config import get_config as get_config
from spt_manager.config import set as set
from spt_manager.manager import Manager as Manager
from spt_manager.place import RunInUseError as RunInUseError
from spt_manager.preemption import Stopped as Stopped
