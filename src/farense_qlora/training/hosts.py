"""The computers that a run is trained on: the file that names them, and what each says of itself."""

import hashlib
import ipaddress
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, reason
from .checkpoints import versions

FILE = "hosts.json"  # in the folder of a run
RANK = "MLX_RANK"  # MLX's own variable for who a process is among those that train together
NAME = "FARENSE_HOST"  # and ours for what its computer is called there
PLACES = "FARENSE_PLACES"  # and for the file with the addresses, of use until they have met
BACKENDS = ("ring", "jaccl", "jaccl-ring")


class PeerLost(Exception):
    """Another of the processes that train together is gone: nothing may be asked of the rest after that, or
    MLX waits for ever."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """A computer: its `name` for people and `ssh` for ssh, the addresses that it listens at, and for JACCL
    its device towards each of the others."""

    name: str
    ssh: str
    ips: tuple[str, ...]
    rdma: tuple[Any, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """All computers, this one first, and the backend of MLX that joins them."""

    hosts: tuple[Host, ...]
    backend: str = "ring"

    @classmethod
    def read(cls, file: Path) -> "Hosts":
        """Those in `file`, as `mlx.distributed_config` writes it.

        Raises `UserError` when it is not so, and on an address that the whole internet can reach, unless the
        file says "public": true.
        """
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            about = found if isinstance(found, dict) else {"hosts": found}
            names = [str(one["ssh"]) for one in about["hosts"]]
            ips = [tuple(map(str, one["ips"])) for one in about["hosts"]]
            rdma = [tuple(one.get("rdma") or ()) for one in about["hosts"]]
            public = [ip for some in ips for ip in some if not ipaddress.ip_address(ip).is_private]
            backend = about.get("backend") or "ring"
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = reason(error) if isinstance(error, OSError) else "tem outra forma"
            raise UserError(
                f"não consigo ler os computadores em {file} ({why}): escreva-o com mlx.distributed_config"
            ) from None
        if backend not in BACKENDS:
            raise UserError(f"{file} pede «{backend}»; só se treina com {', '.join(BACKENDS)}")
        if not names or not all(ips) or any(name.startswith("-") for name in names):
            raise UserError(f"em {file} falta a um computador o nome («ssh») ou um endereço («ips»)")
        if public and about.get("public") is not True:
            raise UserError(
                f"{file} tem endereços da internet ({', '.join(public)}), e o que os computadores dizem vai "
                'às claras: use uma rede sua, ou escreva lá "public": true'
            )
        hosts = zip(_told_apart(names), names, ips, rdma, strict=True)
        return cls(
            hosts=tuple(Host(name=name, ssh=ssh, ips=at, rdma=device) for name, ssh, at, device in hosts),
            backend=backend,
        )

    def environment(self, present: Sequence[Host], port: int) -> tuple[dict[str, str], str, str]:
        """What MLX wants to know in the environment of those `present`: variables, the name of one that holds
        the path of a file, and what stands in that. Ports from `port` on are listened at."""
        if self.backend == "ring":
            numbers = iter(range(port, 65536))
            places = [[f"{ip}:{next(numbers)}" for ip in host.ips] for host in present]
            return {}, "MLX_HOSTFILE", json.dumps(places)
        kept = [i for i, host in enumerate(self.hosts) if host in present]
        devices = [[host.rdma[i] for i in kept] for host in present]
        variables = {"MLX_JACCL_COORDINATOR": f"{present[0].ips[0]}:{port}"}
        if self.backend == "jaccl-ring":
            variables["MLX_JACCL_RING"] = "1"
        return variables, "MLX_IBV_DEVICES", json.dumps(devices)


def _told_apart(names: Sequence[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name} (n.º {i})" for i, name in enumerate(names, 1)]


def greeting() -> dict[str, Any]:
    """What this computer says of itself before anything is asked of it."""
    import psutil  # type: ignore[import-untyped]

    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parents[1].rglob("*.py")))
    computes = versions() | {"código do projeto": hashlib.sha256(code).hexdigest()[:12]}
    del computes["python"]  # decides no number
    return {
        "computes": computes,
        "system": f"{os.uname().sysname} {os.uname().machine}",
        "memory_gb": psutil.virtual_memory().total / 1e9,
        "free_gb": psutil.virtual_memory().available / 1e9,
    }


def differences(here: dict[str, Any], there: dict[str, Any]) -> str:
    """With what the other computer computes that this one does not, in words; empty when with nothing."""
    theirs = there["computes"]
    return "; ".join(
        f"{what} {theirs.get(what, 'nenhum')}, e aqui {ours}"
        for what, ours in here["computes"].items()
        if theirs.get(what) != ours
    )
