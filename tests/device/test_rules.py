"""Every rule and every seat beside it takes rows that lie on a device, with weights that do not."""

from dataclasses import replace

import pytest
import torch

from privfl import catalog
from privfl.core import Released, Rows, Update
from privfl.testing.building import subjects
from privfl.testing.rows import N, context, crowd, opened_for

PARTS = {**catalog.AGGREGATORS, **catalog.DEFENCES}


def made(part, on):
    """All that a part makes of a round whose vectors lie on a device."""
    values = crowd().float().to(on)
    rows = Rows(values, torch.linspace(1, 2, N), tuple(range(N)))
    now = context(rows.d)
    now = replace(now, parameters=now.parameters.to(on))
    found = []
    if "rule" in part.seats:
        opened = opened_for(part, rows)
        found.append(part.step(opened, part.init(), now)[0] if part.remembers else part(opened))
    if "before" in part.seats:
        found.append(part.before(rows, part.init(), now)[0].values)
    if "after" in part.seats:
        found.append(part.after(Released(values[0]), part.init(), now)[0])
    if "client" in part.seats:
        found.append(part.at_client(Update(1, values[0]), part.init_client(), now)[0].delta)
    return [getattr(one, "vector", one).cpu() for one in found]


@pytest.mark.parametrize("name", PARTS)
def test_rows_on_a_device_make_what_rows_on_the_cpu_make(name, device):
    part = next(iter(subjects(PARTS[name]))).made
    there, here = made(part, device), made(part, "cpu")
    assert here
    for one, other in zip(there, here, strict=True):
        assert torch.allclose(one.double(), other.double(), rtol=1e-5, atol=1e-6)
