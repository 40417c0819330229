"""FSDP2 on two CPU processes: the weights of one process, exact resume, folders of shards; `make_it_fast`."""

import os
import sys
from pathlib import Path

import lightning as pl
import pytest
import torch
from spt_manager import make_fsdp2_strategy, make_it_fast
from spt_manager.checkpointing import is_whole, newest_good
from spt_manager.fsdp2 import is_fsdp_strategy

sys.path.insert(0, str(Path(__file__).parent))
from forked import ranks

pytestmark = pytest.mark.filterwarnings("ignore:.*dataloader.*")
HERE = Path(__file__).parent


def single_process(monkeypatch):
    """The same training in one process, on the batches of both ranks together."""
    monkeypatch.syspath_prepend(HERE)
    import fsdp_program as parts
    from torch.utils.data import DataLoader
    from torch.utils.data.distributed import DistributedSampler

    pl.seed_everything(4, verbose=False)
    model = parts.Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    rows = torch.linspace(-1, 1, 128).reshape(32, 4)
    samplers = [DistributedSampler(rows, 2, rank, seed=4) for rank in range(2)]
    model.log = lambda *args: None
    for epoch in range(3):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        loaders = [DataLoader(rows, batch_size=4, sampler=sampler) for sampler in samplers]
        for batches in zip(*loaders, strict=True):
            optimizer.zero_grad()
            torch.stack([model.training_step(batch, 0) for batch in batches]).mean().backward()
            optimizer.step()
    return dict(model.named_parameters())


@pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason="this torch does not shard on a CPU"
)
@pytest.mark.slow
@pytest.mark.distributed
def test_two_ranks_share_the_parameters(tmp_path, monkeypatch):
    processes = ranks(tmp_path, "fsdp_program", "main", str(tmp_path))
    codes = [process.end() for process in processes]
    assert codes == [0, 0], [process.output()[-4000:] for process in processes]
    found = torch.load(tmp_path / "weights.pt", weights_only=True)
    for name, parameter in single_process(monkeypatch).items():
        torch.testing.assert_close(found[name], parameter.detach(), rtol=1e-5, atol=1e-6)

    (last,) = (tmp_path / "cache").rglob("whole/checkpoints/last.ckpt")
    assert last.is_symlink()
    assert len(list(last.glob("*.distcp"))) == 2
    families = [path for path in last.parent.glob("last-step=*") if path.is_dir()]
    assert len(families) == 2, "the one before is kept, older ones are not"
    shard = next(last.glob("*.distcp"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(bytes(content))
    assert not is_whole(last)
    broken = last.resolve()
    (before,) = [path for path in families if path.resolve() != broken]
    assert newest_good(last.parent) == before
    assert broken.with_name(broken.name + ".corrupt").is_dir()
    assert not last.is_symlink()


def test_a_strategy_is_known_by_its_class():
    assert is_fsdp_strategy(make_fsdp2_strategy())
    assert not is_fsdp_strategy(pl.Trainer(logger=False, accelerator="cpu").strategy)


def test_fast_reports_what_it_did(monkeypatch, tmp_path):
    before = torch.get_float32_matmul_precision()
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        done = make_it_fast(cudnn_benchmark=False)
        assert torch.get_float32_matmul_precision() == done["matmul_precision"] == "high"
        assert done["cudnn_benchmark"] == "not asked for"
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == done["inductor_cache"]
        assert done["inductor_cache"] == str(tmp_path / "torchinductor")
        assert "set already" in make_it_fast(verbose=False)["inductor_cache"]
        if not torch.cuda.is_available():
            assert done["tf32"] == done["flash_sdp"] == "there is no CUDA device"
        with pytest.raises(ValueError, match="`matmul_precision` must be one of .*got 'low'"):
            make_it_fast(matmul_precision="low")
    finally:
        os.environ.pop("TORCHINDUCTOR_CACHE_DIR", None)
        torch.set_float32_matmul_precision(before)
