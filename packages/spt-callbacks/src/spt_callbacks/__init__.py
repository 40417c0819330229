"""Live evaluation callbacks for any LightningModule whose step returns a mapping."""

from spt_callbacks.evaluation.knn import OnlineKNN as OnlineKNN
from spt_callbacks.evaluation.knn import knn_vote as knn_vote
from spt_callbacks.evaluation.probe import OnlineProbe as OnlineProbe
from spt_callbacks.evaluation.rankme import RankMe as RankMe
from spt_callbacks.evaluation.rankme import rankme as rankme
from spt_callbacks.keys import MissingKeyError as MissingKeyError
from spt_callbacks.queue import OnlineQueue as OnlineQueue
from spt_callbacks.system.logging import LoggingCallback as LoggingCallback
