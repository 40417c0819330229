"""Synthetic data and noise; everything takes a generator or a seed."""

from spt_data.synthetic_data.episodes import MinariEpisodeDataset as MinariEpisodeDataset
from spt_data.synthetic_data.episodes import MinariStepsDataset as MinariStepsDataset
from spt_data.synthetic_data.manifold import GMM as GMM
from spt_data.synthetic_data.manifold import swiss_roll as swiss_roll
from spt_data.synthetic_data.mixtures import Categorical as Categorical
from spt_data.synthetic_data.mixtures import (
    ExponentialMixtureNoiseModel as ExponentialMixtureNoiseModel,
)
from spt_data.synthetic_data.mixtures import (
    ExponentialNormalNoiseModel as ExponentialNormalNoiseModel,
)
from spt_data.synthetic_data.perlin import generate_perlin_noise_2d as generate_perlin_noise_2d
from spt_data.synthetic_data.perlin import perlin_noise_3d as perlin_noise_3d
