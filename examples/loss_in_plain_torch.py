"""One loss in a plain torch loop: `pip install spt-losses` is all it needs.

python examples/loss_in_plain_torch.py [--max-steps N]
"""

from __future__ import annotations

import argparse

import torch
from spt_losses import BarlowTwinsLoss
from torch import nn


def main(max_steps: int) -> dict[str, float]:
    """Train an encoder of noisy points, and return the first and the last loss."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    points = torch.randn(1024, 32, generator=generator)
    encoder = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 16))
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    loss_fn = BarlowTwinsLoss()
    values = []
    for _ in range(max_steps):
        rows = points[torch.randint(len(points), (256,), generator=generator)]
        first, second = (
            rows + 0.1 * torch.randn(rows.shape, generator=generator) for _ in range(2)
        )
        loss = loss_fn(encoder(first), encoder(second))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.detach())
    return {"first": float(values[0]), "last": float(values[-1])}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-steps", type=int, default=200)
    print(main(parser.parse_args().max_steps))
