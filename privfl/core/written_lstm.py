"""nn.LSTM written out in operations that torch.func maps over networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from privfl.core.errors import UnsupportedModel


class WrittenLSTM(nn.LSTM):
    """What an ``nn.LSTM`` computes, one time step after the other. `written_out` lends its class to
    layers, whose parameters, modes and hooks stay their own.

    Raises:
        UnsupportedModel: packed sequences; dropout between layers, which draws random numbers.

    >>> layer = nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True)
    >>> x = torch.rand(2, 5, 3)
    >>> states, (last, cells) = layer(x)
    >>> with written_out([layer]):
    ...     own, ends = layer(x)
    >>> all(torch.allclose(*both, atol=1e-6) for both in zip((states, last, cells), (own, *ends)))
    True
    """

    def flatten_parameters(self) -> None:
        """Nothing to do: only fused kernels want their weights in one piece."""

    def forward(  # type: ignore[override]  # nn.LSTM's is overloaded for TorchScript
        self, x: Tensor | PackedSequence, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """States [b, t, ...] and the last of each layer and direction, as ``nn.LSTM`` returns."""
        if self.dropout and self.num_layers > 1 and self.training:
            raise UnsupportedModel("dropout between the layers of an LSTM draws random numbers.")
        if isinstance(x, PackedSequence):
            raise UnsupportedModel("packed sequences cannot be mapped.")
        single = x.dim() == 2  # without samples
        if single:
            x = x.unsqueeze(0 if self.batch_first else 1)
            state = None if state is None else (state[0].unsqueeze(1), state[1].unsqueeze(1))
        sequence = x.transpose(0, 1) if self.batch_first else x
        last: list[Tensor] = []
        cells: list[Tensor] = []
        directions = 1 + self.bidirectional
        for depth in range(self.num_layers):
            sides = []
            for way in range(directions):
                at = depth * directions + way
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
            return getattr(self, f"{part}{suffix}", None)

        w_in, w_rec, project = own("weight_ih"), own("weight_hh"), own("weight_hr")
        if w_in is None or w_rec is None:
            raise UnsupportedModel(f"an LSTM without weights for '{suffix}'.")
        bias_in, bias_rec = own("bias_ih"), own("bias_hh")
        gates = nn.functional.linear(x, w_in, bias_in)
        if bias_rec is not None:
            gates = gates + bias_rec
        b, out = x.shape[1], self.proj_size or self.hidden_size
        h, c = (
            given if given is not None else (x.new_zeros(b, out), x.new_zeros(b, self.hidden_size))
        )
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


def recurrent_layers(module: nn.Module) -> list[nn.RNNBase]:
    """The layers that `written_out` is about."""
    return [layer for layer in module.modules() if isinstance(layer, nn.RNNBase)]


@contextmanager
def written_out(layers: Sequence[nn.RNNBase]) -> Iterator[None]:
    """Those that are an ``nn.LSTM`` and nothing more compute as `WrittenLSTM` inside, wherever the
    network has them: what a class of one's own computes, or one whose weights are made of others,
    is left to itself. Afterwards each layer's list of its weights, where ``functional_call`` writes
    too, is what it was.
    """
    own = [layer for layer in layers if type(layer) is nn.LSTM]
    kept = [{key: vars(layer).get(key) for key in _LISTS} for layer in layers]
    weights = [list(layer._flat_weights) for layer in layers]
    try:
        for lent in own:
            lent.__class__ = WrittenLSTM
        yield
    finally:
        for lent in own:
            lent.__class__ = nn.LSTM
        for layer, before, held in zip(layers, kept, weights, strict=True):
            vars(layer).update(before)
            layer._flat_weights[:] = held


_LISTS = ("_flat_weights", "_flat_weight_refs")
