"""Experiment trackers: each keeps one identity per run directory, and resumes by it."""

from spt_manager.trackers.base import Tracker as Tracker
from spt_manager.trackers.connect import Trackers as Trackers
from spt_manager.trackers.trackio import TrackioLogger as TrackioLogger
