"""The files of a federation: everybody's identities and the directory of them, a certificate
authority with the server's certificate, the keys by which the SuperLink knows its nodes, and a
policy for each node.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from privfl import catalog
from privfl.core import ConfigError, PartyId
from privfl.crypto.primitives import Directory, Identity, private_file
from privfl.engine.files import make_folder, write_atomically

SERVER = "server"
DAYS = 825
_HELPER = re.compile(r"(?!server\Z)[a-z][a-z_]*(/\d{1,4})?")
_POLICY = """\
# What this node takes part in; a run that asks for more is refused before it trains.
"""


def set_up(
    folder: Path,
    clients: int,
    helpers: Sequence[PartyId],
    host: str,
    port: int,
    policy: Mapping[str, Any] | None = None,
) -> tuple[Path, ...]:
    """Make a federation's folder, with one folder in it for each machine; each holds the secrets of
    its own party alone, and goes to that machine. What is in ``server/ca.key`` signs certificates
    and stays with whoever runs the federation.

    Args:
        folder: new.
        clients: how many.
        helpers: the helpers of its channels: ``server/1``, ``dealer``, ``decryptor/0``.
        host: the name or address by which nodes reach the SuperLink.
        port: its port.
        policy: of every node; the default takes part in sums of two or more, without foreign code.

    Raises:
        ConfigError: the folder is not empty, or a number that cannot be.
        CannotWrite: it cannot be written to.
    """
    if clients < 1 or not 0 < port < 1 << 16:
        raise ConfigError(f"a network has at least one client and a port, not {clients}, {port}.")
    for who in helpers:
        if not _HELPER.fullmatch(who) or who.partition("/")[0] == "client":
            raise ConfigError(
                f"'{who}' is no helper: name them as channels do, as in server/1, dealer,"
                " decryptor/0."
            )
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"'{folder}' is not empty: a key is never overwritten. Name another one.")
    parties = [*(f"client/{i}" for i in range(clients)), *dict.fromkeys(helpers)]
    keys = {who: Identity.fresh(who) for who in (SERVER, *parties)}
    directory = Directory.of({who: identity.public for who, identity in keys.items()})
    make_folder(folder)
    folder.chmod(0o700)
    at = {who: folder / who.replace("/", "-") for who in keys}
    nodes: dict[str, str] = {}
    for who, path in at.items():
        make_folder(path)
        path.chmod(0o700)
        keys[who].write(path / "identity")
        directory.write(path / "directory.json")
    _certificates(at[SERVER], host)
    for who in parties:
        shutil.copyfile(at[SERVER] / "ca.crt", at[who] / "ca.crt")
        nodes[who] = _node_key(at[who] / "node.key")
        settings: dict[str, Any] = {"party": who, "superlink": f"{host}:{port}"}
        if who.startswith("client/"):
            settings["data"] = {"name": "digits", "clients": clients, "client": int(who[7:])}
        settings["policy"] = dict(policy or default_policy())
        text = yaml.safe_dump(settings, sort_keys=False)
        write_atomically(at[who] / "node.yaml", _POLICY + text)
    write_atomically(at[SERVER] / "nodes.json", json.dumps(nodes, indent=1))
    told = {"host": host, "port": port}
    write_atomically(at[SERVER] / "server.yaml", yaml.safe_dump(told, sort_keys=False))
    return tuple(at.values())


def default_policy() -> dict[str, Any]:
    """Sums of two clients or more, any of privfl's own trainings, no foreign code. A chain, in
    which two other clients read an update, is for an operator to allow.

    >>> [name in default_policy()["channels"] for name in ("secagg", "plain", "chain")]
    [True, False, False]
    """
    built_in = catalog.CHANNELS.built_in
    totals = [name for name, kind in built_in.items() if kind.kind.opens == "total"]
    return {
        "channels": [name for name in totals if name != "chain"],
        "training": list(catalog.TRAINING.built_in),
        "quorum": 2,
        "l2": None,
        "epsilon": None,
        "delta": 1e-5,
        "code": [],
        "repeatable": False,
    }


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _node_key(path: Path) -> str:
    """A key by which the SuperLink knows a node (EC P-256, OpenSSH); its public half as PEM,
    which is in every request, beside a signature.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    raw = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    private_file.write(path, raw)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return public.decode()


def _certificates(folder: Path, host: str) -> None:
    """A certificate authority of this federation's own, and the SuperLink's certificate by it."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "privfl federation CA")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])

    def begun(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=DAYS))
        )

    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = (
        begun(issuer, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(ca_id, critical=False)
        .sign(ca_key, hashes.SHA384())
    )
    names = list(dict.fromkeys((host, "localhost", "127.0.0.1")))
    own = (
        begun(subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_named(n) for n in names]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), critical=False
        )
        .sign(ca_key, hashes.SHA384())
    )
    private_file.write(folder / "ca.key", _pem(ca_key))
    private_file.write(folder / "server.key", _pem(key))
    write_atomically(folder / "ca.crt", ca.public_bytes(serialization.Encoding.PEM))
    write_atomically(folder / "server.crt", own.public_bytes(serialization.Encoding.PEM))


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _named(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
