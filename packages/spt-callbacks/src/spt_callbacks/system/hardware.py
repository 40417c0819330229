"""Load of the machine, sampled beside the training."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import lightning as pl
import torch
from loguru import logger

from spt_callbacks.training.monitored import log_now

Sample = dict[str, float]
GIB = 2**30
MIB = 2**20


class HardwareMonitor(pl.Callback):
    """Sample processor, memory, disk, network and GPUs in a thread and log each sample once.

    The thread fills; a training step only hands a new sample to the loggers, at the current
    ``global_step``. GPU values are those of the visible devices. Needs psutil, and nvidia-ml-py
    for GPUs: ``pip install "spt-callbacks[monitor]"``.

    Args:
        interval_seconds: Time from one sample to the next, above 0.
        prefix: Put before every key.
        log_cpu: ``cpu_percent``.
        log_ram: ``ram_used_pct``, ``ram_used_gb``.
        log_disk: ``disk_read_mb_s``, ``disk_write_mb_s``.
        log_net: ``net_recv_mb_s``, ``net_sent_mb_s``.
        log_gpu: ``gpu_avg_util_pct``, ``gpu_total_mem_used_gb``, ``gpu_avg_mem_pct``,
            ``gpu_avg_temp_c``, ``gpu_total_power_w``.
        log_per_gpu: ``gpu{i}_util_pct``, ``_mem_used_gb``, ``_mem_pct``, ``_temp_c``, ``_power_w``.
        rank_zero_only: Sample on rank 0 alone; else each rank samples and rank 0's are logged.
        log_on_validation: Also hand over during validation.

    Raises:
        ValueError: If ``interval_seconds`` is not above 0.
        ImportError: At the start of training, if psutil is missing.
    """

    def __init__(
        self,
        interval_seconds: float = 10.0,
        prefix: str = "hardware/",
        log_cpu: bool = True,
        log_ram: bool = True,
        log_disk: bool = True,
        log_net: bool = True,
        log_gpu: bool = True,
        log_per_gpu: bool = True,
        rank_zero_only: bool = True,
        log_on_validation: bool = False,
    ) -> None:
        if not interval_seconds > 0:
            raise ValueError(f"`interval_seconds` must be > 0, got {interval_seconds}.")
        self.interval_seconds = interval_seconds
        self.prefix = prefix
        self.log_cpu, self.log_ram, self.log_disk, self.log_net = (
            log_cpu,
            log_ram,
            log_disk,
            log_net,
        )
        self.log_gpu, self.log_per_gpu = log_gpu, log_per_gpu
        self.rank_zero_only = rank_zero_only
        self.log_on_validation = log_on_validation
        self._newest: Sample | None = None
        self._stop: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the thread."""
        if self.rank_zero_only and not trainer.is_global_zero:
            return
        readers = self._readers()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(readers, self._stop), daemon=True)
        self._thread.start()

    def _readers(self) -> list[Callable[[], Sample]]:
        host = HostReader(self.log_cpu, self.log_ram, self.log_disk, self.log_net)
        readers: list[Callable[[], Sample]] = [host]
        if self.log_gpu and torch.cuda.is_available():
            readers.append(GPUReader(self.log_per_gpu))
        return readers

    def _run(self, readers: list[Callable[[], Sample]], stop: threading.Event) -> None:
        while not stop.wait(self.interval_seconds):
            sample: Sample = {}
            for reader in list(readers):
                try:
                    sample |= reader()
                except Exception as error:  # drivers fail in many ways; training must not
                    logger.warning(f"HardwareMonitor stops {type(reader).__name__}: {error}")
                    readers.remove(reader)
            self._newest = {self.prefix + name: value for name, value in sample.items()}

    def _hand_over(self, trainer: pl.Trainer) -> None:
        sample, self._newest = self._newest, None
        if sample:
            log_now(trainer, sample)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Hand a new sample over."""
        self._hand_over(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Hand a new sample over, if asked to."""
        if self.log_on_validation:
            self._hand_over(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Stop the thread."""
        if self._thread is not None and self._stop is not None:
            self._stop.set()
            self._thread.join()
        self._thread = self._stop = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the thread, and without the module's ``log`` that Lightning puts here."""
        dropped = ("log", "log_dict")
        return {
            k: None if k in ("_thread", "_stop") else v
            for k, v in vars(self).items()
            if k not in dropped
        }


class HostReader:
    """Reads processor, memory, disk and network; rates are since the last reading."""

    def __init__(self, cpu: bool, ram: bool, disk: bool, net: bool) -> None:
        try:
            import psutil
        except ImportError as error:
            raise ImportError(
                'HardwareMonitor needs psutil: pip install "spt-callbacks[monitor]".'
            ) from error
        self._psutil: Any = psutil
        self._cpu, self._ram, self._disk, self._net = cpu, ram, disk, net
        psutil.cpu_percent()  # the first call of a process has nothing to compare with
        self._last = (time.monotonic(), self._counters())

    def _counters(self) -> Sample:
        counters: Sample = {}
        disk = self._psutil.disk_io_counters() if self._disk else None
        if disk is not None:
            counters |= {"disk_read_mb_s": disk.read_bytes, "disk_write_mb_s": disk.write_bytes}
        net = self._psutil.net_io_counters() if self._net else None
        if net is not None:
            counters |= {"net_recv_mb_s": net.bytes_recv, "net_sent_mb_s": net.bytes_sent}
        return counters

    def __call__(self) -> Sample:
        """One reading."""
        sample: Sample = {}
        if self._cpu:
            sample["cpu_percent"] = self._psutil.cpu_percent()
        if self._ram:
            memory = self._psutil.virtual_memory()
            sample |= {"ram_used_pct": memory.percent, "ram_used_gb": memory.used / GIB}
        (before, old), now, new = self._last, time.monotonic(), self._counters()
        self._last = (now, new)
        elapsed = max(now - before, 1e-9)
        return sample | {k: (new[k] - old[k]) / elapsed / MIB for k in new if k in old}


class GPUReader:
    """Reads the visible NVIDIA devices through torch's NVML calls."""

    def __init__(self, per_gpu: bool) -> None:
        self._per_gpu = per_gpu

    def __call__(self) -> Sample:
        """One reading."""
        devices = [self._read(i) for i in range(torch.cuda.device_count())]
        sample: Sample = {}
        if self._per_gpu:
            sample = {
                f"gpu{i}_{k}": v for i, device in enumerate(devices) for k, v in device.items()
            }
        column = {key: [device[key] for device in devices] for key in devices[0]}
        return sample | {
            "gpu_avg_util_pct": _mean(column["util_pct"]),
            "gpu_total_mem_used_gb": sum(column["mem_used_gb"]),
            "gpu_avg_mem_pct": _mean(column["mem_pct"]),
            "gpu_avg_temp_c": _mean(column["temp_c"]),
            "gpu_total_power_w": sum(column["power_w"]),
        }

    def _read(self, index: int) -> Sample:
        used = torch.cuda.device_memory_used(index)
        total = torch.cuda.get_device_properties(index).total_memory
        return {
            "util_pct": float(torch.cuda.utilization(index)),
            "mem_used_gb": used / GIB,
            "mem_pct": 100.0 * used / total,
            "temp_c": float(torch.cuda.temperature(index)),
            "power_w": torch.cuda.power_draw(index) / 1000.0,
        }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
