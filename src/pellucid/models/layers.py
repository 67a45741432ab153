"""Looking at one layer of a network while it runs: by a forward hook that lives inside the call."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from pellucid.errors import InputError


def first_tensor(output: Any) -> Tensor | None:
    """Return the tensor that a layer gave: itself, the first of a tuple, or the first value of a table; else None."""
    if isinstance(output, Tensor):
        return output
    values = list(output.values()) if isinstance(output, dict) else output
    return first_tensor(values[0]) if isinstance(values, (tuple, list)) and values else None


def layer_of(network: nn.Module, name: str) -> nn.Module:
    """Return a layer by its name; raise InputError that lists the names where there is none."""
    known = dict(network.named_modules())
    if name not in known or not name:
        listed = ", ".join(key for key in known if key)
        raise InputError(f"the network has no layer {name!r}; it has {listed[:1000] or 'none'}")
    found: nn.Module = known[name]
    return found


def run_with_leaf(network: nn.Module, layer: nn.Module, x: Tensor, keep_graph: bool) -> tuple[Tensor, Any]:
    """Return (what the layer gave, the network's output), the output depending on the former as on a variable.

    The layer's output is a leaf of its own, so that no graph is held below it, unless keep_graph asks for one
    and there is one. A layer that runs several times is taken at its last. Raises InputError for layers that give
    no tensor, or are not reached.
    """
    caught: list[Tensor] = []

    def catch(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        found = first_tensor(output)
        if found is None or not found.is_floating_point():
            return output
        leaf = found if keep_graph and found.requires_grad else found.detach().requires_grad_(True)
        caught.append(leaf)
        return _replaced(output, leaf.clone())  # a copy: what follows may work in place

    handle = layer.register_forward_hook(catch)
    try:
        output = network(x)
    finally:
        handle.remove()
    if not caught:
        raise InputError(f"the layer ({type(layer).__name__}) gave no tensor when the network ran")
    return caught[-1], output


def run_with_graph(network: nn.Module, layers: dict[str, nn.Module], x: Tensor) -> tuple[dict[str, Tensor], Any]:
    """Return (what each layer gave at its last run, the network's output), in one graph over all of them.

    The values are tensors of their own, which the output depends on. One without a graph is a leaf.
    """
    caught: dict[str, Tensor] = {}

    def catching(name: str) -> Callable[..., Any]:
        def catch(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            found = first_tensor(output)
            if found is None or not found.is_floating_point():
                return output
            caught[name] = found.clone() if found.requires_grad else found.detach().requires_grad_(True)
            return _replaced(output, caught[name].clone())

        return catch

    with contextlib.ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(catching(name)).remove)
        output = network(x)
    return caught, output


def reaches(output: Tensor, ends: Iterable[Tensor], beside: Tensor) -> bool:
    """Say whether, in the graph of an output, a way leads to one of the leaves `ends` that is not by way of `beside`.

    >>> import torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> hidden = 2 * x
    >>> reaches(hidden.exp(), [x], hidden), reaches(hidden + x, [x], hidden)
    (False, True)
    """
    closed, found = get_gradient_edge(beside).node, {get_gradient_edge(end).node for end in ends}
    seen, ahead = {closed}, [output.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        if node in found:
            return True
        seen.add(node)
        ahead += [following for following, _ in node.next_functions]
    return False


def _replaced(output: Any, tensor: Tensor) -> Any:
    """Return a layer's output with its first tensor replaced."""
    if isinstance(output, Tensor):
        return tensor
    if isinstance(output, dict):
        key = next(iter(output))
        output[key] = _replaced(output[key], tensor)  # Hugging Face's outputs are ordered tables
        return output
    rest = (_replaced(output[0], tensor), *output[1:])
    return rest if type(output) is tuple else list(rest) if type(output) is list else type(output)(*rest)


def outputs_of(network: nn.Module, named: nn.Module, x: Tensor) -> list[tuple[str, tuple[int, ...]]]:
    """Return (name, shape of the output) of all layers of `named` that gave a float tensor, in the order they ended."""
    seen: list[tuple[str, tuple[int, ...]]] = []

    def watching(name: str) -> Callable[..., None]:
        def see(_module: nn.Module, _inputs: Any, output: Any) -> None:
            found = first_tensor(output)
            if found is not None and found.is_floating_point():
                seen.append((name, tuple(found.shape)))

        return see

    with contextlib.ExitStack() as stack:
        for name, layer in named.named_modules():
            if name:
                stack.callback(layer.register_forward_hook(watching(name)).remove)
        network(x)
    return seen


def input_of_last_linear(network: nn.Module, x: Tensor) -> Tensor:
    """Return what the last linear layer to run takes: the penultimate representation (N, D), with its graph.

    Raises InputError where no linear layer runs, or the last takes no (N, D).
    """
    taken: list[Tensor] = []

    def see(_module: nn.Module, inputs: Any) -> None:
        taken.append(inputs[0])

    with contextlib.ExitStack() as stack:
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                stack.callback(layer.register_forward_pre_hook(see).remove)
        network(x)
    if not taken or taken[-1].ndim != 2:
        raise InputError("the network has no penultimate representation (N, D): no linear layer takes one at its end")
    return taken[-1]
