"""What a federation's folder holds, and who may read it."""

import re
import stat
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from privfl.core import ConfigError
from privfl.crypto.primitives import Directory, Identity
from privfl.flower.node import NodeConfig, own_samples, party_in
from privfl.flower.setup import set_up

SECRETS = {"identity", "node.key", "server.key", "ca.key", "rest.key"}


@pytest.fixture
def fed(tmp_path):
    set_up(tmp_path / "fed", 2, ["server/1", "dealer"], "relay.example.org", 9092)
    return tmp_path / "fed"


def test_everybody_has_keys_of_its_own_that_only_it_can_read(fed):
    names = {path.name for path in fed.iterdir()}
    assert names == {"server", "client-0", "client-1", "server-1", "dealer"}
    for path in (one for one in fed.rglob("*") if one.name in SECRETS):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    directory = Directory.read(fed / "dealer" / "directory.json")
    for name, who in (("client-1", "client/1"), ("server-1", "server/1"), ("server", "server")):
        identity = Identity.read(fed / name / "identity")
        assert identity.who == who
        assert directory.keys(who) == (identity.public.signing,)
    assert len({path.read_bytes() for path in fed.rglob("directory.json")}) == 1


def test_the_servers_certificate_is_its_own_authoritys_and_names_the_host(fed):
    ca = x509.load_pem_x509_certificate((fed / "client-0" / "ca.crt").read_bytes())
    own = x509.load_pem_x509_certificate((fed / "server" / "server.crt").read_bytes())
    own.verify_directly_issued_by(ca)
    names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "relay.example.org" in names.get_values_for_type(x509.DNSName)
    key = serialization.load_pem_private_key((fed / "server" / "server.key").read_bytes(), None)
    assert key.public_key() == own.public_key()


def test_a_folder_is_never_made_twice(fed):
    before = (fed / "client-0" / "identity").read_bytes()
    with pytest.raises(ConfigError, match="is not empty"):
        set_up(fed, 2, [], "localhost", 9092)
    assert (fed / "client-0" / "identity").read_bytes() == before


def test_a_node_wakes_up_from_its_folder(fed):
    config, party = party_in(fed / "client-1")
    assert (party.who, config.superlink) == ("client/1", "relay.example.org:9092")
    assert party.own().n > 100
    assert "plain" not in config.policy.channels
    assert party_in(fed / "dealer")[1].own is None


def test_clients_of_one_simulation_share_its_data_out():
    part = {"name": "digits", "clients": 3}
    parts = [own_samples({**part, "client": i}).n for i in range(3)]
    assert sum(parts) == own_samples({"name": "digits"}).n


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"policy": {"channels": ["secagg"]}}, "training"),
        ({"party": "client/0"}, "holds the keys of client/1"),
        ({"data": None}, "give its file data"),
        ({"run_as": "root"}, "run_as"),
    ],
)
def test_a_nodes_file_that_cannot_be_is_refused(change, why, fed):
    path = fed / "client-1" / "node.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    with pytest.raises(ConfigError, match=why):
        party_in(fed / "client-1")


def test_a_key_that_others_can_read_is_refused(fed):
    (fed / "client-0" / "identity").chmod(0o644)
    with pytest.raises(ConfigError, match="open to others"):
        party_in(fed / "client-0")
    with pytest.raises(ConfigError, match="cannot read"):
        NodeConfig.read(fed / "nowhere")


def test_a_node_with_the_file_of_the_page_takes_part_in_the_run_of_the_page(make, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "network.md").read_text(encoding="utf-8")
    run, file = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    told = NodeConfig.model_validate(file)
    table = tmp_path / "patients.csv"
    table.write_text(
        "age,outcome\n" + "".join(f"{i},{'yes' if i % 2 else 'no'}\n" for i in range(20))
    )
    assert own_samples({**told.data, "path": str(table)}).classes == 2
    machines = make(3, policies={f"client/{i}": told.policy for i in range(3)})
    history = machines.federation({**run, "rounds": 1}).run().history
    assert [(record.survivors, record.incidents) for record in history] == [(3, ())]
