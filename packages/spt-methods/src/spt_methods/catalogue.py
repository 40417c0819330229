"""The table of methods: what each is made of, and what shows that it is right.

The tests walk it, the documentation and ``spt methods`` print it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Views = Literal["two views", "one image", "multi-crop", "image and text", "one video"]


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        method: Name of its class in :mod:`spt_methods.methods`.
        forward: Name of its forward function in :mod:`spt_methods.forward`.
        views: What it reads in training.
        losses: Names in ``spt_losses``.
        callbacks: Names of the callbacks that it brings, of ``spt_callbacks`` or of this package.
        paper: Number on arXiv.
        parity: The test that holds it against its source.
    """

    method: str
    forward: str
    views: Views
    losses: tuple[str, ...]
    paper: str
    parity: str
    callbacks: tuple[str, ...] = ()


EMA = ("TeacherStudentCallback",)

# fmt: off
CATALOGUE: tuple[Row, ...] = (
    Row("BarlowTwins", "barlow_twins", "two views", ("BarlowTwinsLoss",), "2103.03230", "test_two_views.py"),
    Row("BEiT", "beit", "one image", ("BEiTLoss",), "2106.08254", "test_masked.py"),
    Row("BYOL", "byol", "two views", ("BYOLLoss",), "2006.07733", "test_two_views.py", EMA),
    Row("CLIP", "clip", "image and text", ("CLIPLoss",), "2103.00020", "test_image_text.py"),
    Row("CMAE", "cmae", "two views", ("CMAEContrastLoss", "MAELoss"), "2207.13532", "test_cmae.py", EMA),
    Row("CrossMAE", "crossmae", "one image", ("MAELoss",), "2401.14391", "test_crossmae.py"),
    Row("Data2Vec", "data2vec", "one image", ("Data2VecLoss",), "2202.03555", "test_masked.py", EMA),
    Row("DeiT", "supervised", "one image", (), "2012.12877", "test_supervised.py"),
    Row("DINO", "dino", "multi-crop", ("DINOv1Loss",), "2104.14294", "test_multi_crop.py", (*EMA, "FrozenPrototypes")),
    Row("DINOv2", "dinov2", "multi-crop", ("DINOv2Loss",), "2304.07193", "test_multi_crop.py", (*EMA, "FrozenPrototypes")),
    Row("DINOv3", "dinov3", "multi-crop", ("DINOv2Loss", "GramLoss"), "2508.10104", "test_dinov3.py", (*EMA, "FrozenPrototypes", "GramAnchoring")),
    Row("iBOT", "ibot", "multi-crop", ("DINOv1Loss", "iBOTPatchLoss"), "2111.07832", "test_masked.py", (*EMA, "FrozenPrototypes")),
    Row("iGPT", "igpt", "one image", ("AIMLoss",), "2401.08541", "test_autoregressive.py"),
    Row("IJEPA", "ijepa", "one image", ("IJEPALoss",), "2301.08243", "test_masked.py", EMA),
    Row("LeJEPA", "lejepa", "multi-crop", ("LeJEPALoss",), "2511.08544", "test_multi_crop.py"),
    Row("MAE", "mae", "one image", ("MAELoss",), "2111.06377", "test_masked.py"),
    Row("MaskFeat", "maskfeat", "one image", ("MaskFeatLoss",), "2112.09133", "test_masked.py"),
    Row("MIMRefiner", "mimrefiner", "multi-crop", ("NNALoss",), "2402.10093", "test_mimrefiner.py"),
    Row("MoCov2", "mocov2", "two views", ("MoCoLoss",), "2003.04297", "test_two_views.py", EMA),
    Row("MoCov3", "mocov3", "two views", ("MoCoV3Loss",), "2104.02057", "test_two_views.py", EMA),
    Row("MSN", "msn", "multi-crop", ("MSNLoss",), "2204.07141", "test_masked.py", EMA),
    Row("NEPA", "nepa", "one image", ("NEPALoss",), "2512.16922", "test_autoregressive.py"),
    Row("NNCLR", "nnclr", "two views", ("NNCLRLoss",), "2104.14548", "test_two_views.py"),
    Row("PIRL", "pirl", "one image", ("PIRLLoss",), "1912.01991", "test_two_views.py"),
    Row("SALT", "salt", "one image", ("VJEPALoss",), "2509.24317", "test_masked_latent.py"),
    Row("SigLIP", "siglip", "image and text", ("SigLIPLoss",), "2303.15343", "test_image_text.py"),
    Row("SimCLR", "simclr", "two views", ("NTXEntLoss",), "2002.05709", "test_methods.py"),
    Row("SimMIM", "simmim", "one image", ("SimMIMLoss",), "2111.09886", "test_masked.py"),
    Row("SimSiam", "simsiam", "two views", ("SimSiamLoss",), "2011.10566", "test_two_views.py"),
    Row("SwAV", "swav", "multi-crop", ("SwAVLoss",), "2006.09882", "test_multi_crop.py", ("FrozenPrototypes",)),
    Row("TiCO", "tico", "two views", ("TiCoLoss",), "2206.10698", "test_two_views.py", EMA),
    Row("VICReg", "vicreg", "two views", ("VICRegLoss",), "2105.04906", "test_two_views.py"),
    Row("VICRegL", "vicregl", "two views", ("VICRegLLoss",), "2210.01571", "test_two_views.py"),
    Row("VJEPA", "vjepa", "one video", ("VJEPALoss",), "2404.08471", "test_masked_latent.py", EMA),
    Row("WMSE", "wmse", "two views", ("WMSELoss",), "2007.06346", "test_two_views.py"),
)
# fmt: on

# benchmarks/learning.py and image_text.py, on Fashion-MNIST: per cent, in brackets the same network untrained
LEARNED: dict[str, str] = {
    "BarlowTwins": "kNN 74.3 (69.2), linear 76.0 (69.5)",
    "BEiT": "kNN 71.8 (64.7), linear 70.6 (60.3)",
    "BYOL": "kNN 75.4 (69.2), linear 75.6 (69.5)",
    "CLIP": "zero-shot 73.1 (untrained 9.8)",
    "CMAE": "kNN 72.0 (64.7), linear 70.3 (60.3)",
    "CrossMAE": "kNN 73.8 (64.7), linear 72.1 (60.3)",
    "Data2Vec": "kNN 73.0 (64.7), linear 72.2 (60.3)",
    "DeiT": "kNN 77.7 (65.6), linear 77.0 (60.0)",
    "DINO": "kNN 71.5 (69.2), linear 70.8 (69.5)",
    "DINOv2": "kNN 74.6 (65.6), linear 72.5 (60.0)",
    "DINOv3": "kNN 71.1 (65.6), linear 65.4 (60.0)",
    "iBOT": "kNN 68.6 (65.6), linear 66.1 (60.0)",
    "iGPT": "kNN 66.9 (61.7), linear 68.7 (57.7)",
    "IJEPA": "kNN 71.1 (64.4), linear 68.9 (60.0)",
    "LeJEPA": "kNN 74.4 (69.2), linear 74.6 (69.5)",
    "MAE": "kNN 73.0 (64.7), linear 72.7 (60.3)",
    "MaskFeat": "kNN 72.6 (64.7), linear 70.7 (60.3)",
    "MIMRefiner": "kNN 77.6 (65.6), linear 75.2 (60.0)",
    "MoCov2": "kNN 76.1 (69.2), linear 75.7 (69.5)",
    "MoCov3": "kNN 78.3 (69.2), linear 78.2 (69.5)",
    "MSN": "kNN 74.5 (65.6), linear 72.8 (60.0)",
    "NEPA": "kNN 67.1 (64.8), linear 67.0 (62.0)",
    "NNCLR": "kNN 77.6 (69.2), linear 77.8 (69.5)",
    "PIRL": "kNN 77.2 (69.2), linear 77.5 (69.5)",
    "SALT": "kNN 72.1 (64.4), linear 70.5 (60.0)",
    "SigLIP": "zero-shot 82.1 (untrained 9.9)",
    "SimCLR": "kNN 76.9 (69.2), linear 76.9 (69.5)",
    "SimMIM": "kNN 69.1 (64.7), linear 66.6 (60.3)",
    "SimSiam": "kNN 76.5 (69.2), linear 76.4 (69.5)",
    "SwAV": "kNN 76.0 (69.2), linear 75.5 (69.5)",
    "TiCO": "kNN 77.6 (69.2), linear 77.7 (69.5)",
    "VICReg": "kNN 75.1 (69.2), linear 76.3 (69.5)",
    "VICRegL": "kNN 75.0 (69.2), linear 75.3 (69.5)",
    "VJEPA": "kNN 69.6 (64.4), linear 67.9 (62.1)",
    "WMSE": "kNN 75.5 (69.2), linear 75.9 (69.5)",
}


def table() -> str:
    """The table in Markdown."""
    lines = [
        "| method | forward | reads | losses | brings | paper | parity test | has learned |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row.method}` | `{row.forward}` | {row.views} | {_code(row.losses)} | "
        f"{_code(row.callbacks)} | [{row.paper}](https://arxiv.org/abs/{row.paper}) | "
        f"`{row.parity}` | {LEARNED.get(row.method, '')} |"
        for row in CATALOGUE
    ]
    return "\n".join(lines)


def _code(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
