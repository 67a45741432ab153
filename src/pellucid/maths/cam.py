"""Class activation maps as a function of tensors: all K maps and the logits of one forward pass."""

import torch
from torch import Tensor, nn


def cam(features: Tensor, head: nn.Linear) -> tuple[Tensor, Tensor]:
    """Return (maps, logits): maps_{n,c,i} = sum_k W_{c,k} A_{n,k,i}, logits = mean_i maps + bias.

    features (N, D, h, w), head D -> K; maps (N, K, h, w), logits (N, K). Differentiable in both.
    Source: Zhou et al. 2016; Boopathy et al. 2020, equation 1 (raw map: no ReLU, no scaling, no up-sampling).
    """
    maps = torch.einsum("nkhw,ck->nchw", features, head.weight)
    logits = maps.mean((2, 3))
    return maps, logits if head.bias is None else logits + head.bias
