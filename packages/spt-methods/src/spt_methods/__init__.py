"""Self-supervised methods, one file each, with the Lightning Module and backbones they share."""

from spt_methods import backbones as backbones
from spt_methods import forward as forward
from spt_methods import methods as methods
from spt_methods.freeze import FrozenPrototypes as FrozenPrototypes
from spt_methods.gram import GramAnchoring as GramAnchoring
from spt_methods.module import MissingLossError as MissingLossError
from spt_methods.module import Module as Module
from spt_methods.module import NonFiniteLossError as NonFiniteLossError
from spt_methods.schedule import Schedule as Schedule
from spt_methods.views import views_of as views_of
