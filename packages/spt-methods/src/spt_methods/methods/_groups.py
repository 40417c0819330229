"""Parameter groups that several recipes share."""

from __future__ import annotations

from typing import Any

UNDECAYED: dict[str, Any] = {"groups": {kind: {"weight_decay": 0.0} for kind in ("bias", "norm")}}
"""No weight decay for biases and norms; positions and tokens are decayed, as in DINO and MAE."""

UNDECAYED_TOKENS: dict[str, Any] = {
    "groups": {kind: {"weight_decay": 0.0} for kind in ("bias", "norm", "position", "token")}
}
"""None for positions and tokens either, as in BEiT."""
