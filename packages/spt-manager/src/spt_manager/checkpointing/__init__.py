"""Checkpoints that are whole or not there, and the choice of the one to go on from."""

from spt_manager.checkpointing.files import LAST as LAST
from spt_manager.checkpointing.files import PREVIOUS as PREVIOUS
from spt_manager.checkpointing.files import is_whole as is_whole
from spt_manager.checkpointing.files import newest_good as newest_good
from spt_manager.checkpointing.io import AtomicCheckpointIO as AtomicCheckpointIO
from spt_manager.checkpointing.last import LastCheckpoint as LastCheckpoint
