"""Cross-Frame Retrieval: what a frame's latent takes over from the one before, without the matrix
of all pairs.

The released form (DLoRAL, 2025) compares every element i of the current latent z with every element
j of the warped previous one w, in 9 heads of 64 channels, and sums what lies above a threshold that
the element itself decides:

    A_ij = ReLU((Q_i . K_j / 8 - tau_i) / 3000)        tau_i = t . Q_i + t_0
    fused_i = z_i + W_o (sum_j A_ij V_j) + b_o

There is no softmax and no top-k, so nothing can be left out; but Q, K and V are linear in four
channels. With x = [z_i; 1] and y = [w_j; 1], five numbers each, and a 5x5 matrix M of a head's
weights, into which tau and 3000 go as well:

    A_ij = ReLU(a_i . y_j)     a_i = M^T x_i
    fused_i = z_i + b_o + sum over heads of P s_i     s_i = sum_j ReLU(a_i . y_j) y_j

with P, 4x5, of W_o and W_v. The keys y are the same for all heads. At most a block of scores exists
at a time (`sums`); five numbers per query remain of it. That is the same number up to rounding,
which here is that of float32, 1e-6 of the largest |fused - z|; the released half precision rounds
Q, K, each score and each weight, and is off by 1e-3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restore.models.parts.dloral.sums import near_order, relu_sums, top_sums

LATENT_CHANNELS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Retrieval:
    """Which form of the retrieval a network has; the file does not say it."""

    heads: int = 9
    """Heads."""
    channels: int = 64
    """Channels of each."""
    temperature: float = 3000.0
    """What scores are divided by; as released, a number to sum thousands of elements with."""
    top_k: int | None = None
    """Each query takes this many keys, those of the highest scores, as the paper has it; None =
    all, as released. Of equal scores any are taken."""


RELEASED = Retrieval()
"""Of the published weights."""
TOP_K = Retrieval(top_k=4, temperature=1.0)
"""The paper's, for training anew: a sum of few terms needs no temperature. k is our choice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Folded:
    """The weights, multiplied out; H heads."""

    score: Tensor
    """M^T of each head, `(H, 5, 5)`."""
    value: Tensor
    """P of each head, `(H, 4, 5)`."""
    bias: Tensor
    """b_o, `(4,)`."""


class CrossFrameRetrieval(nn.Module):
    """The module, with the published names of its tensors.

    Example:
        `CrossFrameRetrieval()` takes the published weights; `CrossFrameRetrieval(TOP_K)` is the
        paper's variant, to be trained.
    """

    def __init__(self, form: Retrieval = RELEASED) -> None:
        super().__init__()
        self.form = form
        wide = form.heads * form.channels
        self.query_conv = nn.Conv2d(LATENT_CHANNELS, wide, 1)
        self.key_conv = nn.Conv2d(LATENT_CHANNELS, wide, 1)
        self.value_conv = nn.Conv2d(LATENT_CHANNELS, wide, 1)
        self.proj_out = nn.Conv2d(wide, LATENT_CHANNELS, 1)
        self.threshold_fc = nn.Linear(form.channels, 1)

    def forward(self, current: Tensor, warped: Tensor) -> Tensor:
        """The current latent with what it finds in the one before.

        Args:
            current: z, `(B, 4, h, w)`.
            warped: the previous latent, moved along the flow, likewise.

        Returns:
            `(B, 4, h, w)` in the dtype of `current`; computed in float32 at least. Gradients reach
            both and the weights, in bounded memory too. A NaN in `warped` makes all of it NaN, one
            in `current` its own element.
        """
        dtype = torch.promote_types(current.dtype, torch.float32)
        with torch.autocast(current.device.type, enabled=False):
            folded = self.folded(dtype)
            found = [
                self._found(z.flatten(1).to(dtype), w.flatten(1).to(dtype), folded)
                for z, w in zip(current, warped, strict=True)
            ]
            return (current + torch.stack(found).view(current.shape)).to(current.dtype)

    def forward_full(self, current: Tensor, warped: Tensor) -> Tensor:
        """The released form as it is written: the plain twin of `forward`, which stores the scores
        of all pairs, 9 (h w)^2 numbers, several times. Top-k is left out."""
        size = (len(current), self.form.heads, self.form.channels, -1)
        q = self.query_conv(current).view(size).transpose(2, 3)  # (B, H, h w, 64)
        k = self.key_conv(warped).view(size)
        v = self.value_conv(warped).view(size).transpose(2, 3)
        scores = q @ k / self.form.channels**0.5 - self.threshold_fc(q)
        summed = F.relu(scores / self.form.temperature) @ v
        channels = summed.transpose(2, 3).reshape(len(current), -1, *current.shape[2:])
        return current + self.proj_out(channels)

    def folded(self, dtype: torch.dtype) -> Folded:
        """M and P of each head."""
        form = self.form
        q, k, v = (
            _joined(conv).to(dtype).view(form.heads, form.channels, -1)  # (H, 64, 5)
            for conv in (self.query_conv, self.key_conv, self.value_conv)
        )
        score = k.mT @ q / form.channels**0.5  # (H, 5, 5): y^T M^T x
        threshold = self.threshold_fc.weight.to(dtype) @ q  # (H, 1, 5)
        threshold = F.pad(self.threshold_fc.bias.to(dtype), (4, 0)) + threshold
        score = score - F.pad(threshold, (0, 0, 4, 0))  # y ends in 1
        out = self.proj_out.weight.flatten(1).to(dtype).view(-1, form.heads, form.channels)
        return Folded(
            score=score / form.temperature,
            value=out.transpose(0, 1) @ v,
            bias=_joined(self.proj_out)[:, -1].to(dtype),
        )

    def _found(self, current: Tensor, warped: Tensor, folded: Folded) -> Tensor:
        """What is added to a latent `(4, n)`."""
        order = near_order(current.t())
        x = _with_one(current[:, order])
        keys = _with_one(warped[:, near_order(warped.t())]).t().contiguous()
        total = folded.bias[:, None].expand(-1, current.shape[1])
        for score, value in zip(folded.score, folded.value, strict=True):
            total = total + value @ self._sums(score @ x, keys)
        return total[:, order.argsort()]

    def _sums(self, queries: Tensor, keys: Tensor) -> Tensor:
        if self.form.top_k is None:
            return relu_sums(queries, keys)
        return top_sums(queries, keys, count=self.form.top_k)


def _with_one(latent: Tensor) -> Tensor:
    """`(4, n)` -> `(5, n)`, the last row 1."""
    return F.pad(latent, (0, 0, 0, 1), value=1.0)


def _joined(conv: nn.Conv2d) -> Tensor:
    """Weight and bias of a 1x1 convolution as one matrix, `(out, in + 1)`."""
    assert conv.bias is not None
    return torch.cat([conv.weight.flatten(1), conv.bias[:, None]], 1)
