"""nn.LSTM whose backward pass also gives per-sample weight gradients: one fused function per layer
and direction.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from privfl.core import UnsupportedModel
from privfl.dp.sgd.kernels import Forward, Found
from privfl.dp.sgd.per_sample_gradients import StoredGradient, outers

Run = Callable[[nn.Module, Callable[[nn.Module, Tensor], Forward], Tensor, str], Tensor]
"""(layer, kernel, input, suffix of its parameters' names) -> the output, recorded."""


def lstm(
    layer: nn.LSTM, run: Run, x: Tensor, state: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """What ``layer(x)`` returns of x [b, length, d], from states of zero.

    Raises:
        UnsupportedModel: packed sequences, given states, projections, or dropout between layers.
    """
    if (
        not isinstance(x, Tensor)
        or x.ndim != 3
        or state is not None
        or layer.proj_size
        or (layer.dropout and layer.num_layers > 1)
    ):
        raise UnsupportedModel(
            "engine 'bookkeeping' runs an LSTM on [batch, time, features] from zero states, without"
            " proj_size, dropout or packed sequences; for those use engine 'opacus' with"
            " opacus.layers.DPLSTM."
        )
    sequence = x if layer.batch_first else x.transpose(0, 1)
    last: list[Tensor] = []
    for depth in range(layer.num_layers):
        sides = []
        for suffix in (f"_l{depth}", f"_l{depth}_reverse")[: 2 if layer.bidirectional else 1]:
            backwards = suffix.endswith("reverse")
            both = run(layer, _direction(suffix, backwards), sequence, suffix)
            states, cells = both.chunk(2, dim=2)
            sides.append(states)
            end = 0 if backwards else -1
            last.append(torch.stack([states[:, end], cells[:, end]]))
        sequence = torch.cat(sides, dim=2) if layer.bidirectional else sides[0]
    ends = torch.stack(last)
    return (sequence if layer.batch_first else sequence.transpose(0, 1)), (ends[:, 0], ends[:, 1])


def _direction(suffix: str, backwards: bool) -> Callable[[nn.Module, Tensor], Forward]:
    """One layer in one direction: [b, t, i] to hidden and cell states side by side [b, t, 2 h]."""

    def kernel(layer: nn.Module, x: Tensor) -> Forward:
        w_in, w_rec = (getattr(layer, f"weight_{part}{suffix}").detach() for part in ("ih", "hh"))
        b, t, h = len(x), x.shape[1], w_rec.shape[1]
        steps = list(range(t))[::-1] if backwards else list(range(t))
        gates = x @ w_in.T
        if getattr(layer, "bias", False):
            gates += (
                getattr(layer, f"bias_ih{suffix}").detach()
                + getattr(layer, f"bias_hh{suffix}").detach()
            )
        out = x.new_empty(b, t, 2 * h)
        earlier = x.new_empty(b, t, 2 * h)
        state, cell = x.new_zeros(b, h), x.new_zeros(b, h)
        for step in steps:
            earlier[:, step, :h], earlier[:, step, h:] = state, cell
            gate = gates[:, step].addmm_(state, w_rec.T) if b else gates[:, step]
            gate[:, : 2 * h].sigmoid_()
            gate[:, 2 * h : 3 * h].tanh_()
            gate[:, 3 * h :].sigmoid_()
            i, f, g, o = gate.chunk(4, dim=1)
            cell = f * cell + i * g
            state = o * cell.tanh()
            out[:, step, :h], out[:, step, h:] = state, cell

        def backward(
            error: Tensor, saved: tuple[Tensor, ...], wanted: bool
        ) -> tuple[Tensor | None, Found]:
            x, gates, earlier, out = saved
            errors = torch.empty_like(gates)
            d_state, d_cell = x.new_zeros(b, h), x.new_zeros(b, h)
            for step in steps[::-1]:
                i, f, g, o = gates[:, step].chunk(4, dim=1)
                squashed = out[:, step, h:].tanh()
                d_state = d_state + error[:, step, :h]
                d_cell = d_cell + error[:, step, h:] + d_state * o * (1 - squashed.square())
                here = errors[:, step]
                here[:, :h] = d_cell * g * i * (1 - i)
                here[:, h : 2 * h] = d_cell * earlier[:, step, h:] * f * (1 - f)
                here[:, 2 * h : 3 * h] = d_cell * i * (1 - g.square())
                here[:, 3 * h :] = d_state * squashed * o * (1 - o)
                d_cell = d_cell * f
                d_state = here @ w_rec
            found: Found = {
                f"weight_ih{suffix}": outers(x, errors),
                f"weight_hh{suffix}": outers(earlier[:, :, :h], errors),
            }
            if getattr(layer, "bias", False):
                found[f"bias_ih{suffix}"] = found[f"bias_hh{suffix}"] = StoredGradient(
                    errors.sum(dim=1)
                )
            return (errors @ w_in if wanted else None), found

        return out, (x, gates, earlier, out), backward

    return kernel
