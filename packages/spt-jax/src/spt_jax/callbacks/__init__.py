"""Live evaluation as pure functions on device state, fused into the compiled steps, and hooks."""

from spt_jax.callbacks.base import Callback as Callback
from spt_jax.callbacks.early_stopping import EarlyStopping as EarlyStopping
from spt_jax.callbacks.knn import OnlineKNN as OnlineKNN
from spt_jax.callbacks.knn import knn_predict as knn_predict
from spt_jax.callbacks.lidar import LiDAR as LiDAR
from spt_jax.callbacks.lidar import lidar as lidar
from spt_jax.callbacks.probe import OnlineProbe as OnlineProbe
from spt_jax.callbacks.queue import OnlineQueue as OnlineQueue
from spt_jax.callbacks.rankme import RankMe as RankMe
from spt_jax.callbacks.rankme import rankme as rankme
from spt_jax.callbacks.teacher_student import TeacherStudentCallback as TeacherStudentCallback
from spt_jax.callbacks.writer import OnlineWriter as OnlineWriter
