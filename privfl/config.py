"""What a run is told: a YAML file (or a mapping) with defaults for everything, checked key by
key.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from privfl.core import (
    ConfigError,
    in_words,
    mapping_in,
    truth_for_number,
    unknown,
    value_of,
    wrong_value,
)


def _as_part(value: Any) -> Any:
    """A part is a name, or a mapping with a name; `none` and an empty value are the part called
    none.
    """
    if value is None:
        return {"name": "none"}
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping):
        if not isinstance(value.get("name"), str):
            raise ValueError("needs a 'name', as in {name: krum, f: 2}")
        return dict(value)
    raise ValueError("must be a name, or a mapping with a name, as in {name: krum, f: 2}")


Part: TypeAlias = Annotated[dict[str, Any], BeforeValidator(_as_part)]


def _as_parts(value: Any) -> Any:
    if value is None:
        return []
    if not isinstance(value, str | Mapping | list | tuple):
        raise ValueError("must be a name, a mapping with a name, or a list of these")
    return [value] if isinstance(value, str | Mapping) else value


Parts: TypeAlias = Annotated[list[Part], BeforeValidator(_as_parts)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        hint = cls.model_fields[str(info.field_name)].annotation
        if truth_for_number(value, hint):
            raise ValueError(f"must be {in_words(hint)}")
        return value


class DataConfig(_Strict):
    """Which data, among how many clients, split how; other keys go to the loader. ``clients`` None:
    20, or all natural ones.

    A ``client_column`` among them deals the data out by its values, unless ``partition`` says
    otherwise.

    ``root`` is how many training samples the server keeps clean for itself, out of everybody's
    data, for defences that need some. ``validation`` is the share of the training samples on which
    models are measured after each round, in the place of the test set, which is then read once, at
    the end: what is chosen between runs and rounds is chosen on these.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = "digits"
    clients: Annotated[int, Field(ge=1)] | None = None
    partition: Part = {"name": "dirichlet", "alpha": 1.0}
    root: Annotated[int, Field(ge=0)] = 0
    validation: Annotated[float, Field(ge=0, le=0.9)] = 0.0

    @model_validator(mode="before")
    @classmethod
    def _by_its_clients(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("client_column") is not None:
            return {"partition": {"name": "natural"}, **given}
        return given

    @property
    def options(self) -> dict[str, Any]:
        """What the loader is given."""
        return dict(self.model_extra or {})


class AuditConfig(_Strict):
    """What is kept for audits: ``keep`` names rounds to keep whole, ``all``, ``none``, or ``auto``
    (while memory allows).

    ``evaluate_every`` is in rounds; ``delta`` is that of every epsilon shown. An audit attacks the
    run through the views of ``adversaries`` (empty: whom the channel's record names), under each of
    ``layers``: what a layer changes of this config, by name (empty: the config as it is); of every
    client's samples the share ``held_out`` is kept from training. ``attacks`` names what is tried
    (empty: the default attacks at that ``effort``); after ``budget`` seconds none begins any more.
    """

    keep: Literal["auto", "all", "none"] | list[int] = "auto"
    evaluate_every: Annotated[int, Field(ge=1)] = 1
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    layers: dict[str, dict[str, Any]] = {}
    adversaries: list[str] = []
    held_out: Annotated[float, Field(ge=0.1, le=0.9)] = 0.5
    attacks: Parts = []
    effort: Literal["low", "default", "high"] = "default"
    budget: Annotated[float, Field(gt=0)] | None = None


class ThreatConfig(_Strict):
    """Against whom privacy is claimed (`core.Threat`): ``adversary`` looks, with ``colluders``
    clients that tell it what they know; None is the strongest against whom the noise protects.
    Sampling makes a claim cheaper only against those who do not learn who was drawn:
    ``sees_cohort`` None is that only the server does, and with ``sampling: public`` the cohorts
    follow from ``seed``.
    """

    adversary: Literal["model_recipients", "server", "server_and_clients"] | None = None
    colluders: Annotated[int, Field(ge=0)] = 0
    sees_cohort: bool | None = None
    sampling: Literal["secret", "public"] = "public"


class UsersConfig(_Strict):
    """Who is one user, and how much of a user takes part (`core.UserBounds`): ``ids`` names the
    attribute of the data that says whose a sample is; what is beyond the bounds is dropped.
    """

    ids: str
    max_records_per_user: Annotated[int, Field(ge=1)] | None = None
    max_clients_per_user: Annotated[int, Field(ge=1)] = 1
    one_user_per_client: bool = False


class BudgetConfig(_Strict):
    """The most that all runs on this data set may spend (`engine.Budget`): ``epsilon`` at
    ``delta``, counted in the file ``ledger``.
    """

    epsilon: Annotated[float, Field(gt=0)]
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    ledger: str


class EarlyStoppingConfig(_Strict):
    """When a run ends before its last round (`engine.EarlyStopping`): ``patience`` measurements in
    a row that did not raise the best accuracy on data.validation by more than ``least``.
    """

    patience: Annotated[int, Field(ge=1)] = 5
    least: Annotated[float, Field(ge=0, le=1)] = 0.0


class Config(_Strict):
    """A whole run. An empty file is a run: digits, 20 clients, federated averaging.

    ``mail``: signed, every letter is signed by its sender and sealed to its receiver; bare, parties
    believe the label on it, as they may where one process plays everybody.

    ``relation`` is that of the neighbours of whom noise claims privacy: clients that come or go,
    change, or send zero (None: the one that the parts prove most of); ``threat`` says against whom.

    ``unit`` is whose privacy that noise claims: samples (private training), clients (noise on the
    aggregate), or users, who are in ``users``, as each noise allows; None: what the noise protects
    by itself.

    ``budget``: what all runs on these data may spend; the round that would pass it is not played.
    ``metrics`` are further figures of each measured round, by name: a function ``module:function``
    of a torch module and a data set.

    ``start``: public, a model that is drawn from the seed; or the folder of a run, from whose model
    and with whose ledger this one goes on.

    ``data_seats`` are what clients make of their own samples before they train: no guarantee, and
    each beside the attack that breaks it (`privfl list data_seats`).

    ``attackers_know`` is the most that an attack may know: nothing, its own updates, all honest
    updates (benign), or the server's rule.

    ``max_weight`` is the public bound on what one client may weigh (None: the samples of the
    largest one, which nobody knows where clients hold their data elsewhere).

    ``repeatable``: over a network every party draws cohorts, batches and lots from the operating
    system; with ``repeatable: true`` all of them are told ``seed`` and draw from it, as a
    simulation does, and no claim is made that rests on coins: sampling amplifies nothing.

    ``noise_seed`` repeats the noise on aggregates and of shares, and voids its guarantee; that of
    DP-SGD never repeats, and the two together are refused.
    """

    data: DataConfig = DataConfig()
    model: Part = {"name": "softmax"}
    training: Part = {"name": "sgd"}
    sampler: Part = {"name": "all"}
    pace: Part = {"name": "synchronous"}
    rounds: Annotated[int, Field(ge=1)] = 20
    bound: Part = {"name": "none"}
    channel: Part = {"name": "plain"}
    mail: Literal["bare", "signed"] = "bare"
    aggregator: Part = {"name": "mean"}
    defences: Parts = []
    data_seats: Parts = []
    mechanism: Part = {"name": "none"}
    attacks: Parts = []
    relation: Literal["add_remove", "replace_one", "zero_out"] | None = None
    unit: Literal["sample", "client", "user"] | None = None
    users: UsersConfig | None = None
    threat: ThreatConfig = ThreatConfig()
    start: str = "public"
    budget: BudgetConfig | None = None
    attackers_know: Literal["nothing", "own", "benign", "rule"] = "rule"
    server_optimizer: Part = {"name": "fedavg"}
    audit: AuditConfig = AuditConfig()
    early_stopping: EarlyStoppingConfig | None = None
    metrics: dict[str, str] = {}
    device: str = "cpu"
    executor: str = "auto"
    max_weight: Annotated[float, Field(gt=0)] | None = None
    threads: Annotated[int, Field(ge=1)] = 1
    seed: int = 0
    repeatable: bool = False
    noise_seed: int | None = None

    def to_yaml(self) -> str:
        """The resolved config, as it is saved with every run."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)


def load(source: Path | str | Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Read a config from a file or a mapping, with ``a.b=c`` overrides on top.

    Raises:
        ConfigError: no such file, no YAML, an unknown key (with the nearest known one), or a value
            of the wrong type.

    >>> load({"rounds": 3}, ["data.clients=5"]).data.clients
    5
    >>> load({"roundz": 3})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    privfl.core.errors.ConfigError: unknown key 'roundz'; did you mean 'rounds'? Known: ...
    """
    raw: dict[Any, Any] = dict(source) if isinstance(source, Mapping) else mapping_in(Path(source))
    for override in overrides:
        apply_override(raw, override)
    words = [key for key in raw if not isinstance(key, str)]
    if words:
        raise ConfigError(f"keys of a config are words, and '{words[0]}' is none.")
    for key, command in _OTHER_COMMANDS.items():
        if key in raw:
            raise ConfigError(
                f"'{key}' is a key of another kind of run: play a config that has it with"
                f" 'privfl {command} CONFIG.yaml', or leave it out."
            )
    if isinstance(raw.get("data"), str):
        raw["data"] = {"name": raw["data"]}
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from None


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Put an ``a.b=c`` into a config that is no more than a mapping yet, in place.

    Raises:
        ConfigError: it is none.
    """
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"'{override}' is no override: write a.b=c, as in data.clients=50.")
    value = value_of(text, override)
    here = raw
    for key in keys[:-1]:
        below = here.get(key)
        below = (
            {"name": below}
            if isinstance(below, str)
            else dict(below)
            if isinstance(below, Mapping)
            else {}
        )
        here[key] = below
        here = below
    here[keys[-1]] = value


_OTHER_COMMANDS = {"graph": "gossip", "hosts": "vertical"}
_GROUPS: Mapping[str, type[_Strict]] = {
    "audit": AuditConfig,
    "threat": ThreatConfig,
    "budget": BudgetConfig,
    "users": UsersConfig,
    "early_stopping": EarlyStoppingConfig,
}
_MODELS = (*_GROUPS.values(), DataConfig)


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    where = [str(step) for step in first["loc"]]
    if first["type"] == "extra_forbidden":
        model = _GROUPS.get(where[0], Config) if len(where) > 1 else Config
        return unknown(
            "key", ".".join(where), [".".join([*where[:-1], name]) for name in model.model_fields]
        )
    if first["type"] == "missing":
        return f"config key '{'.'.join(where)}' is missing: {where[0]} needs it."
    hint, known = _meant(where)
    return f"config key '{'.'.join(known)}' {wrong_value(dict(first), hint)}"


def every_key() -> list[dict[str, str]]:
    """Every key of a config: what it takes, and what it is without it.

    >>> [row for row in every_key() if row["key"] == "rounds"]
    [{'key': 'rounds', 'takes': 'a whole number', 'default': '20'}]
    """
    return _keys(Config, "")


def _keys(model: type[BaseModel], above: str) -> list[dict[str, str]]:
    rows = []
    for name, field in model.model_fields.items():
        below = _GROUPS.get(name) or (DataConfig if name == "data" else None)
        if below is not None and not above:
            rows += _keys(below, f"{name}.")
            continue
        hint, without = field.annotation, field.get_default()
        takes = in_words(hint)
        if BeforeValidator(_as_part) in field.metadata:
            takes = "a name, or a mapping with a name"
        elif BeforeValidator(_as_parts) in field.metadata:
            takes = "a list of names, or of mappings with a name"
        needed = f"needed with {above.removesuffix('.')}"
        default = needed if field.is_required() else _written(without)
        rows.append({"key": f"{above}{name}", "takes": takes, "default": default})
    return rows


def _written(value: Any) -> str:
    """A default as a config has it."""
    if isinstance(value, Mapping) and value.keys() == {"name"}:
        return str(value["name"])
    if value is None:
        return "none"
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")


def _meant(where: Sequence[str]) -> tuple[Any, list[str]]:
    """The type of the key that a path leads to, and the part of the path that names keys."""
    model: type[BaseModel] = Config
    optional = False
    for depth, step in enumerate(where, start=1):
        hint = model.model_fields[step].annotation
        arms = typing.get_args(hint) or (hint,)
        group = next((arm for arm in arms if arm in _MODELS), None)
        if group is None:
            of = typing.get_args(hint) if typing.get_origin(hint) is dict else ()
            named = of[:1] == (str,) and of[1:] == (str,) and len(where) > depth
            return (str, list(where[: depth + 1])) if named else (hint, list(where[:depth]))
        model, optional = group, type(None) in arms
    return (dict | None if optional else dict), list(where)
