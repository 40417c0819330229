"""Switch on what makes training faster on this machine, and say what that was."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch
from loguru import logger


def make_it_fast(
    *,
    tf32: bool = True,
    matmul_precision: str = "high",
    cudnn_benchmark: bool = True,
    flash_sdp: bool = True,
    inductor_cache: bool = True,
    verbose: bool = True,
) -> dict[str, str]:
    """Trade a little precision and bitwise reproducibility for speed, in this process.

    Nothing of this happens unless you call it, before the Manager.

    Args:
        tf32: Let matrix products and convolutions of float32 use TensorFloat-32.
        matmul_precision: ``"highest"``, ``"high"`` or ``"medium"``, for float32 products.
        cudnn_benchmark: Let cuDNN try its algorithms for each shape of input.
        flash_sdp: Let attention use the flash and memory-efficient kernels.
        inductor_cache: Keep what ``torch.compile`` makes across processes, in a folder of the user.
        verbose: Log what was done.

    Returns:
        Each setting with what was done, or why it was not.

    Raises:
        ValueError: If ``matmul_precision`` is unknown.

    Example:
        >>> before = torch.get_float32_matmul_precision()
        >>> done = make_it_fast(inductor_cache=False, verbose=False)
        >>> done["matmul_precision"], done["inductor_cache"]
        ('high', 'not asked for')
        >>> torch.set_float32_matmul_precision(before)
    """
    levels = ("highest", "high", "medium")
    if matmul_precision not in levels:
        raise ValueError(f"`matmul_precision` must be one of {levels}, got {matmul_precision!r}.")
    if not tf32:  # any lower precision is made of it
        matmul_precision = "highest"
    torch.set_float32_matmul_precision(matmul_precision)
    done = {
        "matmul_precision": matmul_precision,
        "tf32": _on_cuda(tf32, _use_tf32),
        "cudnn_benchmark": _on_cuda(cudnn_benchmark, _use_benchmark),
        "flash_sdp": _on_cuda(flash_sdp, _use_flash),
        "inductor_cache": _keep_inductor_cache() if inductor_cache else "not asked for",
    }
    if verbose:
        told = ", ".join(f"{name}: {what}" for name, what in done.items())
        logger.info(f"make_it_fast: {told}")
    return done


def _on_cuda(asked: bool, switch: object) -> str:
    if not asked:
        return "not asked for"
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    assert callable(switch)
    return str(switch())


def _use_tf32() -> str:
    if torch.cuda.get_device_capability() < (8, 0):
        return "the device is older than Ampere"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    return "on"


def _use_benchmark() -> str:
    torch.backends.cudnn.benchmark = True
    return "on"


def _use_flash() -> str:
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cuda.enable_mem_efficient_sdp(True)
    return "on"


def _keep_inductor_cache() -> str:
    variable = "TORCHINDUCTOR_CACHE_DIR"
    if variable in os.environ:
        return f"{variable} was set already"
    home = os.environ.get("XDG_CACHE_HOME") or Path(tempfile.gettempdir()) / f"user-{os.getuid()}"
    os.environ[variable] = str(Path(home) / "torchinductor")
    return os.environ[variable]
