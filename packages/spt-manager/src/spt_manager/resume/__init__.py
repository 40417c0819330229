"""Exact resume: a run that was stopped after any batch goes on as if nothing had happened."""

from spt_manager.resume.loops import ExactFitLoop as ExactFitLoop
from spt_manager.resume.loops import install_exact_loops as install_exact_loops
from spt_manager.resume.state import ExactState as ExactState
