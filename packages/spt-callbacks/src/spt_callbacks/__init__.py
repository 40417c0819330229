"""Live evaluation callbacks for any LightningModule whose step returns a mapping."""

from spt_callbacks.checkpointing.huggingface import (
    HuggingFaceCheckpointCallback as HuggingFaceCheckpointCallback,
)
from spt_callbacks.checkpointing.sklearn import SklearnCheckpoint as SklearnCheckpoint
from spt_callbacks.checkpointing.strict import StrictCheckpointCallback as StrictCheckpointCallback
from spt_callbacks.checkpointing.trackers import SwanLabCheckpoint as SwanLabCheckpoint
from spt_callbacks.checkpointing.trackers import TrackioCheckpoint as TrackioCheckpoint
from spt_callbacks.checkpointing.trackers import WandbCheckpoint as WandbCheckpoint
from spt_callbacks.evaluation.knn import OnlineKNN as OnlineKNN
from spt_callbacks.evaluation.knn import knn_vote as knn_vote
from spt_callbacks.evaluation.probe import OnlineProbe as OnlineProbe
from spt_callbacks.evaluation.rankme import RankMe as RankMe
from spt_callbacks.evaluation.rankme import rankme as rankme
from spt_callbacks.factories import default_callbacks as default_callbacks
from spt_callbacks.keys import MissingKeyError as MissingKeyError
from spt_callbacks.queue import OnlineQueue as OnlineQueue
from spt_callbacks.system.clean_up import CleanUpCallback as CleanUpCallback
from spt_callbacks.system.environment import EnvironmentDumpCallback as EnvironmentDumpCallback
from spt_callbacks.system.hardware import HardwareMonitor as HardwareMonitor
from spt_callbacks.system.logging import LoggingCallback as LoggingCallback
from spt_callbacks.system.module_registry import ModuleRegistryCallback as ModuleRegistryCallback
from spt_callbacks.system.module_registry import log as log
from spt_callbacks.system.module_registry import log_dict as log_dict
from spt_callbacks.system.module_summary import ModuleSummary as ModuleSummary
from spt_callbacks.system.slurm_info import SLURMInfo as SLURMInfo
from spt_callbacks.system.trainer_info import TrainerInfo as TrainerInfo
from spt_callbacks.system.unused_parameters import (
    LogUnusedParametersOnce as LogUnusedParametersOnce,
)
from spt_callbacks.training.early_stopping import EarlyStopping as EarlyStopping
from spt_callbacks.training.ema import ema_update as ema_update
from spt_callbacks.training.embedding_cache import EmbeddingCache as EmbeddingCache
from spt_callbacks.training.epoch_milestones import EpochMilestones as EpochMilestones
from spt_callbacks.training.hp_metric import HPMetricLogger as HPMetricLogger
from spt_callbacks.training.teacher_student import TeacherStudentCallback as TeacherStudentCallback
from spt_callbacks.training.weight_decay import WeightDecayUpdater as WeightDecayUpdater
from spt_callbacks.training.writer import OnlineWriter as OnlineWriter
