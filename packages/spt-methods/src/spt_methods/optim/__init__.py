"""The ``optim`` argument of a module: from its grammar to what Lightning takes."""

from spt_methods.optim.build import configure as configure
from spt_methods.optim.build import horizon as horizon
from spt_methods.optim.grammar import Entry as Entry
from spt_methods.optim.grammar import normalise_optim as normalise_optim
