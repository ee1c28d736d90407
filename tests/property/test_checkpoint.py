"""What goes into a checkpoint comes out bit for bit, and secrets do not go in."""

import dataclasses
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privfl.core import ClientState, KeepsSecrets, SecretsStay
from privfl.engine import checkpoint

leaf = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5)
)
state = st.recursive(
    leaf,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(state)
def test_plain_states_come_back_equal_with_their_types(tmp_path_factory, value):
    folder = tmp_path_factory.mktemp("state")
    checkpoint.save(folder, 1, value)
    back = checkpoint.load(folder).state
    assert back == value
    assert type(back) is type(value)


def test_tensors_and_dataclasses_come_back_bit_for_bit(tmp_path):
    value = {
        3: ClientState({"control": torch.tensor([1.0, float("nan"), -0.0])}),
        "half": torch.ones(2, dtype=torch.float16),
    }
    checkpoint.save(tmp_path, 1, value)
    back = checkpoint.load(tmp_path).state
    assert isinstance(back[3], ClientState)
    assert (
        back[3].vectors["control"].view(torch.int32).tolist()
        == value[3].vectors["control"].view(torch.int32).tolist()
    )
    assert back["half"].dtype == torch.float16


def test_the_newest_whole_step_counts_and_all_but_the_one_before_it_go(tmp_path):
    checkpoint.save(tmp_path, 0, "older")
    checkpoint.save(tmp_path, 1, "old")
    checkpoint.save(tmp_path, 2, "new")
    (tmp_path / ".draft-99").mkdir()
    assert checkpoint.load(tmp_path).state == "new"
    checkpoint.save(tmp_path, 3, "newest")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def test_an_empty_folder_has_no_state(tmp_path):
    assert checkpoint.load(tmp_path) is None


def test_secrets_and_live_objects_are_refused(tmp_path):
    class Key(KeepsSecrets):
        pass

    @dataclasses.dataclass
    class Holder:
        key: Key

    with pytest.raises(SecretsStay):
        checkpoint.save(tmp_path, 1, Holder(Key()))
    with pytest.raises(TypeError, match="cannot be checkpointed"):
        checkpoint.save(tmp_path, 1, print)
    assert checkpoint.load(tmp_path) is None


def test_a_kill_while_a_step_is_removed_leaves_no_half_of_one(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, [torch.ones(2)])
    checkpoint.save(tmp_path, 2, [torch.ones(2)])
    whole = {path.name for path in (tmp_path / "step-00000001").iterdir()}

    def killed(path, **_):
        for file in sorted(path.iterdir())[:1]:
            file.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda p, **k: killed(p) if p.exists() else None)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, 3, [torch.ones(2)])
    steps = sorted(tmp_path.glob("step-*"))
    assert [step.name for step in steps] == ["step-00000002", "step-00000003"]
    assert all({path.name for path in step.iterdir()} == whole for step in steps)
    assert {path.name for path in tmp_path.iterdir()} > {step.name for step in steps}
    checkpoint.save(tmp_path, 4, [torch.ones(2)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]
