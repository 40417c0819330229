"""Dict-shaped datasets, transforms and a Lightning DataModule, with a bundled sample data set."""

from spt_data import masks as masks
from spt_data import recipes as recipes
from spt_data import static as static
from spt_data import synthetic_data as synthetic_data
from spt_data import transforms as transforms
from spt_data._download import bulk_download as bulk_download
from spt_data._download import download as download
from spt_data._errors import CorruptSampleError as CorruptSampleError
from spt_data.adapter import DictIterableDataset as DictIterableDataset
from spt_data.adapter import DictMapDataset as DictMapDataset
from spt_data.adapter import FromDictDataset as FromDictDataset
from spt_data.collate import Collator as Collator
from spt_data.collate import MultiBlockCollator as MultiBlockCollator
from spt_data.collate import apply_masks as apply_masks
from spt_data.collate import collate as collate
from spt_data.datamodule import DataModule as DataModule
from spt_data.datasets import Dataset as Dataset
from spt_data.datasets import DatasetMixin as DatasetMixin
from spt_data.datasets import FromTorchDataset as FromTorchDataset
from spt_data.datasets import IterableDataset as IterableDataset
from spt_data.huggingface import HFDataset as HFDataset
from spt_data.huggingface import HFIterableDataset as HFIterableDataset
from spt_data.huggingface import HFMapDataset as HFMapDataset
from spt_data.lance import LanceImageDataset as LanceImageDataset
from spt_data.lance import build_lance_image_dataset as build_lance_image_dataset
from spt_data.lance_video import LanceVideoSegments as LanceVideoSegments
from spt_data.lance_video import build_lance_video_dataset as build_lance_video_dataset
from spt_data.loader import Loader as Loader
from spt_data.masks import RandomMask as RandomMask
from spt_data.masks import multi_block_mask as multi_block_mask
from spt_data.mixing import MixCollator as MixCollator
from spt_data.sample import sample_dataset as sample_dataset
from spt_data.samplers import RandomBatchSampler as RandomBatchSampler
from spt_data.samplers import RepeatedRandomSampler as RepeatedRandomSampler
from spt_data.samplers import SupervisedBatchSampler as SupervisedBatchSampler
from spt_data.subset import Subset as Subset
from spt_data.subset import random_split as random_split
from spt_data.utils import get_num_workers as get_num_workers
from spt_data.views import fold_views as fold_views

dataset_stats = static  # its longer name
noise = manifold = synthetic_data
