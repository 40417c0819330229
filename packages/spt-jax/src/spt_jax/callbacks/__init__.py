"""Live evaluation as pure functions on device state, fused into the compiled steps."""

from spt_jax.callbacks.base import Callback as Callback
from spt_jax.callbacks.knn import OnlineKNN as OnlineKNN
from spt_jax.callbacks.probe import OnlineProbe as OnlineProbe
from spt_jax.callbacks.rankme import RankMe as RankMe
