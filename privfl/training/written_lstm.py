"""nn.LSTM written out in operations that torch.func maps over networks."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from privfl.core import UnsupportedModel


class WrittenLSTM(nn.Module):
    """What an ``nn.LSTM`` computes, from its own parameters under their own names, one time step
    after the other.

    Raises:
        UnsupportedModel: packed sequences; dropout between layers, which draws random numbers.

    >>> layer = nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    >>> x = torch.rand(2, 5, 3)
    >>> (states, (last, cells)), (own, ends) = layer(x), WrittenLSTM(layer)(x)
    >>> all(torch.allclose(*both, atol=1e-6) for both in zip((states, last, cells), (own, *ends)))
    True
    """

    def __init__(self, layer: nn.LSTM) -> None:
        super().__init__()
        if layer.dropout and layer.num_layers > 1 and layer.training:
            raise UnsupportedModel("dropout between the layers of an LSTM draws random numbers.")
        self.layers, self.directions = layer.num_layers, 1 + layer.bidirectional
        self.batch_first, self.hidden, self.projected = (
            layer.batch_first,
            layer.hidden_size,
            layer.proj_size,
        )
        for name, parameter in layer.named_parameters():
            self.register_parameter(name, parameter)

    def forward(
        self, x: Tensor | PackedSequence, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """States [b, t, ...] and the last of each layer and direction, as ``nn.LSTM`` returns."""
        if isinstance(x, PackedSequence):
            raise UnsupportedModel("packed sequences cannot be mapped.")
        single = x.dim() == 2  # without samples
        if single:
            x = x.unsqueeze(0 if self.batch_first else 1)
            state = None if state is None else (state[0].unsqueeze(1), state[1].unsqueeze(1))
        sequence = x.transpose(0, 1) if self.batch_first else x
        last: list[Tensor] = []
        cells: list[Tensor] = []
        for depth in range(self.layers):
            sides = []
            for way in range(self.directions):
                at = depth * self.directions + way
                given = None if state is None else (state[0][at], state[1][at])
                states, h, c = self._one(sequence, f"_l{depth}{'_reverse' * way}", way, given)
                sides.append(states)
                last.append(h)
                cells.append(c)
            sequence = torch.cat(sides, dim=2) if len(sides) > 1 else sides[0]
        ends = torch.stack(last), torch.stack(cells)
        out = sequence.transpose(0, 1) if self.batch_first else sequence
        if single:
            return out.squeeze(0 if self.batch_first else 1), (ends[0][:, 0], ends[1][:, 0])
        return out, ends

    def _one(
        self, x: Tensor, suffix: str, backwards: int, given: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One layer in one direction, of [t, b, i]: states [t, b, o], the last one and its cell."""

        def own(part: str) -> Tensor | None:
            return self._parameters.get(f"{part}{suffix}")

        w_in, w_rec, project = own("weight_ih"), own("weight_hh"), own("weight_hr")
        if w_in is None or w_rec is None:
            raise UnsupportedModel(f"an LSTM without weights for '{suffix}'.")
        bias_in, bias_rec = own("bias_ih"), own("bias_hh")
        gates = nn.functional.linear(x, w_in, bias_in)
        if bias_rec is not None:
            gates = gates + bias_rec
        b, out = x.shape[1], self.projected or self.hidden
        h, c = given if given is not None else (x.new_zeros(b, out), x.new_zeros(b, self.hidden))
        states = []
        steps = gates.unbind(0)
        for gate in reversed(steps) if backwards else steps:
            i, f, g, o = (gate + h @ w_rec.T).chunk(4, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            if project is not None:
                h = h @ project.T
            states.append(h)
        return torch.stack(states[::-1] if backwards else states), h, c


def with_written_lstms(module: nn.Module) -> nn.Module:
    """The same network with its LSTMs written out: itself where it has none, else one of the same
    parameters and buffers under the same names.
    """
    if not any(isinstance(layer, nn.LSTM) for layer in module.modules()):
        return module
    shared: dict[int, Tensor] = {id(p): p for p in (*module.parameters(), *module.buffers())}
    twin = copy.deepcopy(module, dict(shared))
    if isinstance(twin, nn.LSTM):
        return WrittenLSTM(twin)
    for above in list(twin.modules()):
        for name, layer in list(above.named_children()):
            if isinstance(layer, nn.LSTM):
                setattr(above, name, WrittenLSTM(layer))
    return twin
