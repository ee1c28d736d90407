"""Where each data set comes from: official addresses, sizes, checksums, licences. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Remote:
    """One file to download: where it goes in the data folder, addresses to try in turn, its size in
    bytes, its SHA-256.

    A file with ``members`` is a tar archive: the named members go into the folder of ``file``, and
    the archive is not kept.
    """

    file: str
    addresses: tuple[str, ...]
    size: int
    sha256: str
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """A data set's licence, its page for people, the files to fetch, and those that loading cannot
    do without.

    ``needs`` are relative to the data folder, without ``.gz``. No files to fetch and none needed:
    the data set is embedded.
    """

    licence: str
    page: str
    files: tuple[Remote, ...]
    needs: tuple[str, ...]


def _mnist(file: str, size: int, sha256: str) -> Remote:
    mirrors = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    )
    return Remote(f"mnist/{file}", tuple(mirror + file for mirror in mirrors), size, sha256)


def _qmnist(file: str, size: int, sha256: str) -> Remote:
    return Remote(
        f"qmnist-writers/{file}",
        (f"https://raw.githubusercontent.com/facebookresearch/qmnist/master/{file}",),
        size,
        sha256,
    )


def _fashion(file: str, size: int, sha256: str) -> Remote:
    address = f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{file}"
    return Remote(f"fashion-mnist/{file}", (address,), size, sha256)


def _uci(folder: str, file: str, size: int, sha256: str) -> Remote:
    address = f"https://archive.ics.uci.edu/ml/machine-learning-databases/{folder}/{file}"
    return Remote(f"{folder}/{file}", (address,), size, sha256)


def _nsl(file: str, size: int, sha256: str) -> Remote:
    """The official page asks for a form; this is a copy at a fixed commit, held to the checksum."""
    copy = (
        "LiuYangSO/Genetic-Algorithm-based-Adversarial-Examples-Generation"
        "-against-Machine-Learning-based-IDS"
    )
    commit = "0c6a551be6abec45615b4e86ca8a99190c6533c1"
    address = f"https://raw.githubusercontent.com/{copy}/{commit}/{file.replace('+', '%2B')}"
    return Remote(f"nsl-kdd/{file}", (address,), size, sha256)


_IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

ORIGINS: Mapping[str, Origin] = {
    "digits": Origin(
        "CC BY 4.0 (UCI)", "https://archive.ics.uci.edu/dataset/80", files=(), needs=()
    ),
    "mnist": Origin(
        licence="CC BY-SA 3.0; writers from QMNIST, BSD",
        page="http://yann.lecun.com/exdb/mnist/",
        files=(
            _mnist(
                "train-images-idx3-ubyte.gz",
                9912422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            _mnist(
                "train-labels-idx1-ubyte.gz",
                28881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            _mnist(
                "t10k-images-idx3-ubyte.gz",
                1648877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            _mnist(
                "t10k-labels-idx1-ubyte.gz",
                4542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
            _qmnist(
                "qmnist-train-labels-idx2-int.gz",
                463024,
                "2c05dc77f6b916b38e455e97ab129a42a444f3dbef09b278a366f82904e0dd9f",
            ),
            _qmnist(
                "qmnist-test-labels-idx2-int.gz",
                526800,
                "9fbcbe594c3766fdf4f0b15c5165dc0d1e57ac604e01422608bb72c906030d06",
            ),
        ),
        needs=tuple(f"mnist/{file}" for file in _IDX),
    ),
    "fashion_mnist": Origin(
        licence="MIT",
        page="https://github.com/zalandoresearch/fashion-mnist",
        files=(
            _fashion(
                "train-images-idx3-ubyte.gz",
                26421880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            _fashion(
                "train-labels-idx1-ubyte.gz",
                29515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            _fashion(
                "t10k-images-idx3-ubyte.gz",
                4422102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            _fashion(
                "t10k-labels-idx1-ubyte.gz",
                5148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
        needs=tuple(f"fashion-mnist/{file}" for file in _IDX),
    ),
    "cifar10": Origin(
        licence="none stated; cite Krizhevsky 2009",
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
        files=(
            # the size and checksum that several other projects publish; the official page gives
            # only an MD5
            Remote(
                file="cifar-10-batches-bin/cifar-10-binary.tar.gz",
                addresses=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
                size=170052171,
                sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                members=tuple(
                    f"cifar-10-batches-bin/{file}"
                    for file in (
                        *(f"data_batch_{i}.bin" for i in (1, 2, 3, 4, 5)),
                        "test_batch.bin",
                    )
                ),
            ),
        ),
        needs=("cifar-10-batches-bin/data_batch_1.bin", "cifar-10-batches-bin/test_batch.bin"),
    ),
    "shakespeare": Origin(
        licence="public domain",
        page="https://github.com/karpathy/char-rnn",
        files=(
            Remote(
                file="tinyshakespeare/input.txt",
                addresses=(
                    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data"
                    "/tinyshakespeare/input.txt",
                ),
                size=1115394,
                sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            ),
        ),
        needs=("tinyshakespeare/input.txt",),
    ),
    "adult": Origin(
        licence="CC BY 4.0 (UCI, doi 10.24432/C5XW20)",
        page="https://archive.ics.uci.edu/dataset/2/adult",
        files=(
            _uci(
                "adult",
                "adult.data",
                3974305,
                "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
            ),
            _uci(
                "adult",
                "adult.test",
                2003153,
                "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
            ),
        ),
        needs=("adult/adult.data", "adult/adult.test"),
    ),
    "heart_disease": Origin(
        licence="CC BY 4.0 (UCI, doi 10.24432/C52P4X)",
        page="https://archive.ics.uci.edu/dataset/45/heart+disease",
        files=(
            _uci(
                "heart-disease",
                "processed.cleveland.data",
                18461,
                "a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8",
            ),
            _uci(
                "heart-disease",
                "processed.hungarian.data",
                10263,
                "d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796",
            ),
            _uci(
                "heart-disease",
                "processed.switzerland.data",
                4109,
                "834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314",
            ),
            _uci(
                "heart-disease",
                "processed.va.data",
                6737,
                "e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f",
            ),
        ),
        needs=tuple(
            f"heart-disease/processed.{hospital}.data"
            for hospital in ("cleveland", "hungarian", "switzerland", "va")
        ),
    ),
    "nsl_kdd": Origin(
        licence="free with citation of Tavallaee et al. 2009",
        page="https://www.unb.ca/cic/datasets/nsl.html",
        files=(
            _nsl(
                "KDDTrain+_20Percent.txt",
                3822033,
                "1a1559ff163a1dfa7ad1fba6b00ac6a408cc16741588831b66f043b918881e53",
            ),
            _nsl(
                "KDDTest+.txt",
                3441513,
                "86b5ec03d20c040bdbeeb7eb68ae7df37e27a16c5b66a6ba2b62b8fed0e5cdfa",
            ),
        ),
        needs=("nsl-kdd/KDDTrain+_20Percent.txt", "nsl-kdd/KDDTest+.txt"),
    ),
}
