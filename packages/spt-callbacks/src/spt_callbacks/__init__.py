"""Live evaluation callbacks for any LightningModule whose step returns a mapping."""

from spt_callbacks.checkpointing.huggingface import (
    HuggingFaceCheckpointCallback as HuggingFaceCheckpointCallback,
)
from spt_callbacks.checkpointing.sklearn import SklearnCheckpoint as SklearnCheckpoint
from spt_callbacks.checkpointing.strict import StrictCheckpointCallback as StrictCheckpointCallback
from spt_callbacks.checkpointing.trackers import SwanLabCheckpoint as SwanLabCheckpoint
from spt_callbacks.checkpointing.trackers import TrackioCheckpoint as TrackioCheckpoint
from spt_callbacks.checkpointing.trackers import WandbCheckpoint as WandbCheckpoint
from spt_callbacks.evaluation.align_uniform import Alignment as Alignment
from spt_callbacks.evaluation.align_uniform import Uniformity as Uniformity
from spt_callbacks.evaluation.align_uniform import alignment as alignment
from spt_callbacks.evaluation.align_uniform import uniformity as uniformity
from spt_callbacks.evaluation.alpha_req import AlphaReQ as AlphaReQ
from spt_callbacks.evaluation.alpha_req import alpha_req as alpha_req
from spt_callbacks.evaluation.collapse import FeatureStd as FeatureStd
from spt_callbacks.evaluation.collapse import MeanCosine as MeanCosine
from spt_callbacks.evaluation.collapse import feature_std as feature_std
from spt_callbacks.evaluation.collapse import mean_cosine as mean_cosine
from spt_callbacks.evaluation.image_decoder import OnlineImageDecoder as OnlineImageDecoder
from spt_callbacks.evaluation.knn import OnlineKNN as OnlineKNN
from spt_callbacks.evaluation.latent_viz import LatentViz as LatentViz
from spt_callbacks.evaluation.lidar import LiDAR as LiDAR
from spt_callbacks.evaluation.lidar import lidar as lidar
from spt_callbacks.evaluation.nearest import knn_vote as knn_vote
from spt_callbacks.evaluation.pooling import pool_tokens as pool_tokens
from spt_callbacks.evaluation.probe import OnlineProbe as OnlineProbe
from spt_callbacks.evaluation.rankme import RankMe as RankMe
from spt_callbacks.evaluation.rankme import rankme as rankme
from spt_callbacks.evaluation.retrieval import ImageRetrieval as ImageRetrieval
from spt_callbacks.evaluation.sweep import OnlineProbeSweep as OnlineProbeSweep
from spt_callbacks.evaluation.zero_shot import CLIPZeroShot as CLIPZeroShot
from spt_callbacks.factories import default_callbacks as default_callbacks
from spt_callbacks.keys import MissingKeyError as MissingKeyError
from spt_callbacks.memory import OrderedQueue as OrderedQueue
from spt_callbacks.memory import UnsortedQueue as UnsortedQueue
from spt_callbacks.online_queue import OnlineQueue as OnlineQueue
from spt_callbacks.online_queue import (
    find_or_create_queue_callback as find_or_create_queue_callback,
)
from spt_callbacks.queue import queues_of as queues_of
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
from spt_callbacks.training.trainable import TrainableCallback as TrainableCallback
from spt_callbacks.training.weight_decay import WeightDecayUpdater as WeightDecayUpdater
from spt_callbacks.training.writer import OnlineWriter as OnlineWriter
