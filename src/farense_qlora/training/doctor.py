"""Look over this computer before training: what is there, what is wrong, and the command that mends it."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from packaging.requirements import Requirement

from ..config import CACHE, OUTPUT, PROFILES, RUNS, Config
from ..data.tokens import read_rows
from ..errors import UserError, disk_error
from ..files import atomic_write
from ..model.machine import Machine, machine, memory_limit, on_cpu
from ..text import decimal

RECOMMENDED = OUTPUT / "recommended_config.json"
# What Mistral-7B takes on the disk: the 16-bit download and its 4-bit copy, or the 4-bit download alone.
DISK_GB = {16: 19.0, 4: 4.5}


@dataclass(frozen=True)
class Check:
    """One thing looked at; `remedy` says what to do when it is not `ok`."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Report:
    """The computer, what was checked on it, and the profile that suits it."""

    machine: Machine
    checks: tuple[Check, ...]
    profile: str

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(check.ok for check in self.checks)


def doctor() -> Report:
    """Check everything, and write the config that suits this machine to `RECOMMENDED`, where the panel of the
    notebook finds it; takes a second or two."""
    about = machine()
    profile = recommended_profile(about.memory_gb, on_cpu())
    checks = [*_software(about), *_memory(about, profile), *_folders(), *_disk(profile), *_data()]
    checks += _base(profile)
    try:
        with atomic_write(RECOMMENDED) as path:
            Config.of(profile).write(path)
    except UserError:
        pass  # that the folder cannot be written stands among the checks
    return Report(about, tuple(checks), profile)


def recommended_profile(memory_gb: float, on_cpu: bool) -> str:
    """The largest profile that a machine of `memory_gb` should try; on the CPU, Mistral-7B takes days."""
    if on_cpu or memory_gb < 7:
        return "mini"
    return "mistral-7b-8gb" if memory_gb < 15 else "mistral-7b" if memory_gb < 30 else "mistral-7b-32gb"


def _software(about: Machine) -> Iterator[Check]:
    yield Check("Python", sys.version_info >= (3, 11), about.python, "instale o Python 3.11 ou mais recente")
    old = []
    for text in metadata.requires("farense-qlora") or []:
        wanted = Requirement(text)
        if (wanted.marker is None or wanted.marker.evaluate({"extra": ""})) and not _installed(wanted):
            old.append(f"{wanted.name}{wanted.specifier}")
    yield Check("Pacotes", not old, "todos" if not old else f"faltam {', '.join(old)}", "make setup")
    slow = about.device == "CPU" and sys.platform == "linux" and not about.blas.startswith("OpenBLAS")
    yield Check(
        "Álgebra linear",
        not slow,
        f"{about.blas}, {about.gflops:.0f} GFLOP/s medidos",
        "make setup; e chame farense_qlora.model.cpu.enable() antes de importar o mlx",
    )


def _installed(wanted: Requirement) -> bool:
    try:
        return wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def _memory(about: Machine, profile: str) -> Iterator[Check]:
    limit = memory_limit() / 1e9
    needed = 0.5 if profile == "mini" else 4.7
    yield Check(
        "Memória",
        limit >= needed,
        f"{decimal(about.memory_gb, 1)} GB, dos quais {decimal(limit, 1)} para treinar",
        "feche outros programas; «farense-qlora fit» mede o que cabe",
    )


def _folders() -> Iterator[Check]:
    for name, folder in (("Treinos", RUNS), ("Resultados", OUTPUT), ("Cache", CACHE)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            yield Check(name, True, f"{folder}, pode escrever-se")
        except OSError as error:
            yield Check(name, False, str(disk_error(error, folder)), f"chmod u+w {folder}")


def _disk(profile: str) -> Iterator[Check]:
    folder = next(path for path in (RUNS, *RUNS.parents) if path.exists())
    free = shutil.disk_usage(folder).free / 1e9
    model = PROFILES[profile]["model"]
    needed = 0.2 if profile == "mini" else DISK_GB[4 if "4bit" in model else 16]
    yield Check(
        "Disco",
        free >= needed,
        f"{decimal(free, 1)} GB livres",
        f"liberte espaço: precisa de {decimal(needed, 1)} GB",
    )


def _data() -> Iterator[Check]:
    config = Config()
    for name in (config.train_data, config.val_data):
        try:
            rows = len(read_rows(name))
            yield Check(f"Dados ({Path(name).stem})", True, f"{rows} linhas")
        except UserError as error:
            yield Check(f"Dados ({Path(name).stem})", False, str(error), "farense-qlora prepare")


def _base(profile: str) -> Iterator[Check]:
    model = PROFILES[profile]["model"]
    here = model == "mini" or isinstance(try_to_load_from_cache(model, "config.json"), str)
    offline = os.environ.get("HF_HUB_OFFLINE") == "1"
    detail = "já descarregado" if here else "por descarregar"
    detail = "incluído no repositório" if model == "mini" else detail
    yield Check("Modelo base", here or not offline, f"{model}, {detail}", "tire HF_HUB_OFFLINE do ambiente")
