"""Many linear heads as one batched matmul, each with a learning rate of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from spt_callbacks.distributed import average_gradients, same_on_all_ranks


class BatchedHeads(nn.Module):
    """A linear head for each pair of an input and a learning rate; inputs of one width multiply at once.

    Weights start from N(0, 0.01) and biases from 0, as in DINOv2.

    Args:
        widths: Features of each input.
        num_rates: Heads on each input, L.
        num_outputs: Outputs of each head, C.
    """

    def __init__(self, widths: Sequence[int], num_rates: int, num_outputs: int) -> None:
        super().__init__()
        self.widths = list(widths)
        self.num_rates = num_rates
        self.num_outputs = num_outputs
        self.groups = {
            width: [i for i, w in enumerate(self.widths) if w == width]
            for width in dict.fromkeys(self.widths)
        }
        outputs = num_rates * num_outputs
        self.weights = nn.ParameterList(
            torch.randn(len(members), width, outputs) * 0.01
            for width, members in self.groups.items()
        )
        self.biases = nn.ParameterList(
            torch.zeros(len(members), 1, outputs) for members in self.groups.values()
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Outputs ``(V, L, N, C)`` of inputs ``(N, D_v)``, one per variant."""
        found: dict[int, Tensor] = {}
        layout = (-1, self.num_rates, self.num_outputs)
        for members, weight, bias in zip(
            self.groups.values(), self.weights, self.biases, strict=True
        ):
            rows = torch.stack([inputs[i] for i in members])  # (V, N, D)
            outputs = torch.baddbmm(bias, rows, weight)  # (V, N, L C)
            for i, output in zip(members, outputs, strict=True):
                found[i] = output.view(layout).transpose(0, 1)
        return torch.stack([found[i] for i in range(len(self.widths))])

    def linear(self, variant: int, rate: int) -> nn.Linear:
        """One of the heads, as a layer of its own."""
        width = self.widths[variant]
        group, place = list(self.groups).index(width), self.groups[width].index(variant)
        columns = slice(rate * self.num_outputs, (rate + 1) * self.num_outputs)
        layer = nn.Linear(width, self.num_outputs, device=self.weights[group].device)
        with torch.no_grad():
            layer.weight.copy_(self.weights[group][place, :, columns].T)
            layer.bias.copy_(self.biases[group][place, 0, columns])
        return layer


class BatchedSGD:
    """SGD with momentum in which each head has its own learning rate, as a column of the weights.

    Args:
        heads: The heads.
        rates: Learning rate of each, L of them.
        momentum: Heavy-ball momentum.
        weight_decay: L2 penalty.
    """

    def __init__(
        self, heads: BatchedHeads, rates: Sequence[float], momentum: float, weight_decay: float
    ) -> None:
        self.heads = heads
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.parameters: list[Tensor] = list(heads.parameters())
        self.velocity = [torch.zeros_like(p) for p in self.parameters]
        columns = torch.tensor(rates, dtype=torch.float32).repeat_interleave(heads.num_outputs)
        self.rates = columns.to(self.parameters[0].device)
        same_on_all_ranks(self.parameters)

    def step(self, loss: Tensor, factor: float) -> None:
        """Descend on the sum of the heads' losses.

        Args:
            loss: Scalar.
            factor: Of all learning rates, by the schedule.
        """
        loss.backward()
        average_gradients(self.parameters)
        with torch.no_grad():
            grads = [p.grad for p in self.parameters if p.grad is not None]
            if self.weight_decay:
                grads = list(torch._foreach_add(grads, self.parameters, alpha=self.weight_decay))
            torch._foreach_mul_(self.velocity, self.momentum)
            torch._foreach_add_(self.velocity, grads)
            moves = list(torch._foreach_mul(self.velocity, [self.rates * factor] * len(grads)))
            torch._foreach_sub_(self.parameters, moves)
        for p in self.parameters:
            p.grad = None


def loss_of_each(
    loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor
) -> Tensor:
    """The loss of each head, ``(V, L)``, of outputs ``(V, L, N, C)``."""
    each: Tensor = torch.func.vmap(lambda one: loss(one, targets))(outputs.flatten(0, 1))
    return each.view(outputs.shape[:2])
