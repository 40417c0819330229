"""Dict-shaped datasets, transforms and a Lightning DataModule, with a bundled sample data set."""

from spt_data import static as static
from spt_data import transforms as transforms
from spt_data.datamodule import DataModule as DataModule
from spt_data.datasets import Dataset as Dataset
from spt_data.datasets import FromTorchDataset as FromTorchDataset
from spt_data.datasets import Subset as Subset
from spt_data.huggingface import HFDataset as HFDataset
from spt_data.huggingface import HFIterableDataset as HFIterableDataset
from spt_data.huggingface import HFMapDataset as HFMapDataset
from spt_data.loader import Loader as Loader
from spt_data.masks import RandomMask as RandomMask
from spt_data.sample import sample_dataset as sample_dataset
from spt_data.samplers import RandomBatchSampler as RandomBatchSampler
from spt_data.samplers import RepeatedRandomSampler as RepeatedRandomSampler
from spt_data.samplers import SupervisedBatchSampler as SupervisedBatchSampler
from spt_data.views import fold_views as fold_views
