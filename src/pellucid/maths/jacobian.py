"""The size of a network's Jacobian, exactly or from a few random directions."""

import torch
from torch import Tensor

from pellucid.errors import InputError
from pellucid.maths.passes import gradient
from pellucid.rng import Stream


def squared_frobenius(
    outputs: Tensor,
    x: Tensor,
    *,
    projections: int | None = None,
    rng: Stream | None = None,
    create_graph: bool = False,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return ||J(x_n)||_F^2 of outputs with respect to x, per example; differentiable with create_graph.

    ||J||_F^2 = sum_{d,k} (d o_k / d x_d)^2, by K backward passes; or estimated from n <= K projections,
    (K/n) sum_{j=1}^{n} ||v_j^T J||^2, v_j random orthonormal directions in R^K, an estimate without bias that is exact
    for n = K.

    outputs (N, K) of x (N, ...), each row depending on its own example -> (N,), squared and summed in `dtype`: that of
    x, float32 at least, unless given. The graph of the outputs is kept. Raises InputError for outputs of another
    shape, for more projections than outputs, and for fewer than one.
    Source: Jakubovitz & Giryes 2018, equation 3; Hoffman et al. 2019, equations 7 and 8. Deviation: their directions
    for n > 1 are independent; orthonormal ones cost the same and vary less.
    """
    if outputs.ndim != 2 or len(outputs) != len(x):
        raise InputError(f"outputs must be (N, K), a row per example; got {tuple(outputs.shape)} for {len(x)}")
    classes = outputs.shape[1]
    if projections is not None and not 1 <= projections <= classes:
        raise InputError(f"projections must be 1 to {classes}, the number of outputs; got {projections}")
    if projections is None:
        rows = [outputs[:, k] for k in range(classes)]
    else:
        directions = orthonormal(outputs, projections, rng or Stream())
        rows = [(outputs * directions[:, :, j]).sum(1) for j in range(projections)]
    wide = dtype or (torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype)
    total = torch.zeros(len(x), dtype=wide, device=x.device)
    for row in rows:
        total = total + gradient(row, x, create_graph, retain_graph=True).to(wide).flatten(1).square().sum(1)
    return total * (classes / len(rows)) if rows else total


def orthonormal(like: Tensor, count: int, rng: Stream) -> Tensor:
    """Return `count` random orthonormal directions in R^K for each example, (N, K, count): like (N, K).

    >>> found = orthonormal(torch.zeros(2, 3, dtype=torch.float64), 3, Stream(1))
    >>> bool((found.mT @ found - torch.eye(3)).abs().max() < 1e-12)
    True
    """
    wide = like.detach().float() if like.dtype in (torch.float16, torch.bfloat16) else like.detach()
    drawn = rng.child("directions").normal(wide, (like.shape[1], count))
    basis, corner = torch.linalg.qr(drawn)
    signs = torch.where(corner.diagonal(dim1=1, dim2=2) < 0, -1.0, 1.0).to(basis)  # uniform over all directions
    turned: Tensor = (basis * signs[:, None, :]).to(like.dtype)
    return turned
