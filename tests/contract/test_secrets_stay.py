"""Whatever holds secrets refuses every way in which an object becomes plain data by accident."""

import copy
import dataclasses
import importlib
import json
import pickle
import pkgutil

import pytest

import privfl
from privfl.core import KeepsSecrets, SecretsStay, StateKey, seal_state, unseal_state
from privfl.crypto.primitives import Identity, backend
from privfl.crypto.primitives.sealed_box import BoxKey


def _kinds():
    for module in pkgutil.walk_packages(privfl.__path__, "privfl."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, open_ = {}, [KeepsSecrets]
    while open_:
        for kind in open_.pop().__subclasses__():
            if kind.__module__.startswith("privfl."):
                found[f"{kind.__module__}.{kind.__qualname__}"] = kind
                open_.append(kind)
    return found


KINDS = _kinds()
DATACLASSES = {name: kind for name, kind in KINDS.items() if dataclasses.is_dataclass(kind)}


def _filled(kind):
    """An object of this class with key bytes in every field that its class does not fill."""
    made = object.__new__(kind)
    for field in dataclasses.fields(kind):
        value = b"key bytes" if field.default is dataclasses.MISSING else field.default
        object.__setattr__(made, field.name, value)
    return made


@pytest.mark.parametrize("name", KINDS)
def test_it_is_not_pickled_copied_or_shown(name):
    kind = KINDS[name]
    made = _filled(kind) if name in DATACLASSES else object.__new__(kind)
    for way in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(SecretsStay, match="holds secrets"):
            way(made)
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(made)
    assert "key bytes" not in repr(made) + str(made)


@pytest.mark.parametrize("name", DATACLASSES)
def test_it_is_not_taken_apart_field_by_field(name):
    made = _filled(DATACLASSES[name])
    for way in (dataclasses.asdict, dataclasses.astuple):
        for holder in (made, _Holder(made)):
            with pytest.raises(SecretsStay, match="holds secrets"):
                way(holder)


@dataclasses.dataclass
class _Holder:
    inside: object


def test_there_are_secrets_to_look_at():
    assert {Identity, BoxKey} < set(DATACLASSES.values())
    assert len(KINDS) > len(DATACLASSES) > 40


def test_real_keys_do_not_leave_an_identity_or_an_agreed_key_as_a_dictionary():
    identity = Identity.fresh("client/1")
    agreed = BoxKey.fresh(identity.public.box, backend())
    for keys in (identity, agreed):
        with pytest.raises(SecretsStay):
            dataclasses.asdict(keys)


def test_what_holds_secrets_is_still_sealed_replaced_and_compared():
    @dataclasses.dataclass(frozen=True)
    class Share(KeepsSecrets):
        who: int
        value: bytes = b""

    one, key = Identity.fresh("client/1"), StateKey()
    woken = unseal_state(seal_state(one, key), key, Identity)
    assert (woken.who, woken.signing, woken.box) == (one.who, one.signing, one.box)
    with pytest.raises(SecretsStay):
        dataclasses.asdict(woken)
    assert dataclasses.replace(Share(1, b"x"), who=2) == Share(2, b"x") != Share(2, b"y")
    assert hash(Share(1)) == hash(Share(1))
