"""Channel statistics of well-known data sets, in units of [0, 1] images.

Each is a mapping with ``mean`` and ``std``, made for ``ToImage(**static.CIFAR10)``.
"""

from __future__ import annotations


def _stats(mean: list[float], std: list[float]) -> dict[str, list[float]]:
    return {"mean": mean, "std": std}


def _imagenet() -> dict[str, list[float]]:
    return _stats([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def _faces() -> dict[str, list[float]]:
    return _stats([0.5063, 0.4258, 0.3832], [0.2654, 0.2453, 0.2412])


def _actions() -> dict[str, list[float]]:
    return _stats([0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989])


CIFAR10 = _stats([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])
CIFAR100 = _stats([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761])
ImageNet = _imagenet()
TinyImageNet = _stats([0.4802, 0.4481, 0.3975], [0.2302, 0.2265, 0.2262])
STL10 = _stats([0.4467, 0.4398, 0.4066], [0.2603, 0.2566, 0.2713])
SVHN = _stats([0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970])
MNIST = _stats([0.1307], [0.3081])
FashionMNIST = _stats([0.2860], [0.3530])
Food101 = _stats([0.5459, 0.4448, 0.3468], [0.2761, 0.2691, 0.2821])
OxfordFlowers = _stats([0.434, 0.385, 0.296], [0.292, 0.263, 0.272])
CelebA = _faces()
LFW = _faces()
UCF101 = _actions()
Kinetics400 = _actions()
Cityscapes = _stats([0.28689554, 0.32513303, 0.28389177], [0.18696375, 0.19017339, 0.18720214])
CamVid = _stats([0.390687, 0.405213, 0.414304], [0.296520, 0.305149, 0.300803])
# sets of photographs whose own statistics nobody uses
Caltech256 = _imagenet()
OxfordPet = _imagenet()
SUN397 = _imagenet()
Places365 = _imagenet()
COCO = _imagenet()
PascalVOC = _imagenet()
ADE20K = _imagenet()
NYUDepthV2 = _imagenet()
