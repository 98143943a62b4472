"""The file of `mlx.distributed_config`: read, refused when it is unsafe, and told to MLX."""

import json
from pathlib import Path

import pytest

from farense_qlora.errors import UserError
from farense_qlora.training.hosts import Hosts, differences, greeting

TWO = [{"ssh": "a", "ips": ["192.168.1.2", "10.0.0.2"]}, {"ssh": "b", "ips": ["192.168.1.3", "10.0.0.3"]}]


def write(folder: Path, about: object) -> Path:
    file = folder / "hosts.json"
    file.write_text(json.dumps(about))
    return file


def test_every_form_of_the_file_is_read(tmp_path: Path) -> None:
    for about in (TWO, {"hosts": TWO}, {"backend": "ring", "envs": [], "hosts": TWO}):
        hosts = Hosts.read(write(tmp_path, about))
        assert [host.name for host in hosts.hosts] == ["a", "b"] and hosts.backend == "ring"
    twice = Hosts.read(write(tmp_path, [{"ssh": "a", "ips": ["127.0.0.1"]}] * 2))
    assert [host.name for host in twice.hosts] == ["a (n.º 1)", "a (n.º 2)"]


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ([{"ssh": "a"}], "não consigo ler os computadores"),
        ("texto", "não consigo ler os computadores"),
        ([], "falta a um computador"),
        ([{"ssh": "a", "ips": []}], "falta a um computador"),
        ([{"ssh": "-oProxyCommand=touch x", "ips": ["127.0.0.1"]}], "falta a um computador"),
        ([{"ssh": "a", "ips": ["não é"]}], "não consigo ler os computadores"),
        ({"backend": "mpi", "hosts": TWO}, "pede «mpi»"),
        ([{"ssh": "a", "ips": ["8.8.8.8"]}], r"tem endereços da internet \(8\.8\.8\.8\)"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, about: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Hosts.read(write(tmp_path, about))


def test_a_public_address_is_taken_when_the_file_says_so(tmp_path: Path) -> None:
    public = {"public": True, "hosts": [{"ssh": "a", "ips": ["8.8.8.8"]}]}
    assert Hosts.read(write(tmp_path, public)).hosts[0].ips == ("8.8.8.8",)


def test_mlx_is_told_of_those_that_are_there(tmp_path: Path) -> None:
    ring = Hosts.read(write(tmp_path, TWO))
    variables, name, places = ring.environment(ring.hosts[1:], 20000)
    assert (variables, name) == ({}, "MLX_HOSTFILE")
    assert json.loads(places) == [["192.168.1.3:20000", "10.0.0.3:20001"]]
    devices = [[None, "ab", "ac"], ["ba", None, "bc"], ["ca", "cb", None]]
    three = [
        {"ssh": name, "ips": ["10.0.0.1"], "rdma": one} for name, one in zip("abc", devices, strict=True)
    ]
    jaccl = Hosts.read(write(tmp_path, {"backend": "jaccl-ring", "hosts": three}))
    variables, name, places = jaccl.environment([jaccl.hosts[0], jaccl.hosts[2]], 20000)
    assert variables == {"MLX_JACCL_COORDINATOR": "10.0.0.1:20000", "MLX_JACCL_RING": "1"}
    assert name == "MLX_IBV_DEVICES" and json.loads(places) == [[None, "ac"], ["ca", None]]


def test_differences_are_named() -> None:
    here = greeting()
    assert differences(here, greeting()) == ""
    other = {"computes": here["computes"] | {"mlx": "0.1.2"}}
    assert differences(here, other) == f"mlx 0.1.2, e aqui {here['computes']['mlx']}"
    assert "código do projeto" in here["computes"] and here["free_gb"] <= here["memory_gb"]
