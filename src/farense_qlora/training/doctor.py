"""Look over this computer before training: what is there, what is wrong, and the command that mends it."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from huggingface_hub.constants import HF_HUB_CACHE
from packaging.requirements import Requirement

from ..config import CACHE, OUTPUT, RUNS, Config
from ..data.tokens import read_rows
from ..errors import UserError, disk_error
from ..model.machine import Machine, machine, memory_limit, on_cpu
from ..profiles import PROFILES
from ..table import Table
from ..text import counted, decimal, size
from .checkpoints import checkpoint_bytes
from .cost import download_gb, estimate, shape_of, weights_gb
from .events import Restarted, Started, of
from .power import power
from .run import all_runs

HUB = Path(HF_HUB_CACHE)  # where models are downloaded to


@dataclass(frozen=True)
class Check:
    """One thing looked at; `remedy` says what to do when it is not `ok`."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{'✓' if self.ok else '✗'} {self.name}"


@dataclass(frozen=True, repr=False)
class Report:
    """The computer, what was checked on it, and the profile that suits it."""

    machine: Machine
    checks: tuple[Check, ...]
    profile: str

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(check.ok for check in self.checks)

    def _repr_html_(self) -> str:
        checked = {check.name for check in self.checks}
        facts = [fact for fact in machine_facts(self.machine) if fact[0] not in checked]  # said only once
        facts += [(str(one), one.detail if one.ok else f"{one.detail}: {one.remedy}") for one in self.checks]
        return Table.of_facts("Este computador", [*facts, ("Perfil recomendado", self.profile)])._repr_html_()

    def __repr__(self) -> str:
        lines = []
        for check in self.checks:
            lines.append(f"{check}: {check.detail}")
            lines += [] if check.ok else [f"    a fazer: {check.remedy}"]
        return "\n".join([*lines, f"perfil recomendado: {self.profile}"])


def doctor() -> Report:
    """Check everything; takes a second or two.

    >>> fq.doctor().profile in ("mini", "mistral-7b-8gb", "mistral-7b", "mistral-7b-32gb")
    True
    """
    about = machine()
    profile = recommended_profile(about.memory_gb, on_cpu())
    return Report(about, tuple(_checks(about, profile)), profile)


def share(about: Machine) -> str:
    """A table in Markdown, to paste where one asks for help: the computer and its last trainings, by their
    profiles; no names and no paths."""
    rows = [*machine_facts(about), ("Energia", "; ".join(power()) or "nada a abranda")]
    for run in all_runs()[:3]:
        with suppress(UserError):  # of an older version, or damaged
            config, now, events = run.config, run.numbers, run.events()
            profile = config.profile if config.profile in PROFILES else "outro"
            predicted = next((event.predicted_gb for event in of(events, Started) if event.predicted_gb), 0.0)
            took = [
                f"{counted(now.step, 'atualização')} em {decimal(now.seconds, 0)} s",
                f"{decimal(now.tokens_per_s or 0.0, 0)} tokens/s",
                f"memória {decimal(now.peak_memory_gb or 0.0, 2)} GB, prevista {decimal(predicted, 2)}",
                f"recomeços {len(of(events, Restarted))}",
            ]
            rows.append((f"Treino, perfil {profile}, {config.bits} bits", "; ".join(took)))
    lines = [f"| {name} | {text} |" for name, text in [("Facto", "Valor"), ("---", "---"), *rows]]
    return "\n".join(lines)


def recommended_profile(memory_gb: float, on_cpu: bool) -> str:
    """The largest profile that a machine of `memory_gb` should try; on the CPU, Mistral-7B takes days."""
    if on_cpu or memory_gb < 7:
        return "mini"
    return "mistral-7b-8gb" if memory_gb < 15 else "mistral-7b" if memory_gb < 30 else "mistral-7b-32gb"


def machine_facts(about: Machine) -> list[tuple[str, str]]:
    """What the computer is, each fact by its name in Portuguese."""
    return [
        ("Sistema", about.system),
        ("Processador", f"{about.chip}, {counted(about.cores, 'núcleo')}"),
        ("Memória", f"{decimal(about.memory_gb, 1)} GB"),
        ("O MLX calcula em", about.device),
        ("Álgebra linear", f"{about.blas}, {decimal(about.gflops, 0)} GFLOP/s medidos"),
        ("Versões", f"Python {about.python}, mlx {about.mlx}, mlx-lm {about.mlx_lm}"),
    ]


def _checks(about: Machine, profile: str) -> Iterator[Check]:
    """Software, memory, folders, disk, data and base model, in the order in which they are shown."""
    yield Check("Python", sys.version_info >= (3, 11), about.python, "instale o Python 3.11 ou mais recente")
    wanted = [Requirement(text) for text in metadata.requires("farense-qlora") or []]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    missing = ", ".join(f"{one.name}{one.specifier}" for one in wanted if not _is_installed(one))
    yield Check("Pacotes", not missing, f"em falta: {missing}" if missing else "todos", "make setup")
    slow = about.device == "CPU" and sys.platform == "linux" and not about.blas.startswith("OpenBLAS")
    speed = f"{about.blas}, {about.gflops:.0f} GFLOP/s medidos"
    yield Check(
        "Álgebra linear",
        not slow,
        speed,
        "make setup; e chame farense_qlora.model.cpu.enable() antes de importar o mlx",
    )

    config, limit = Config.of(profile), memory_limit() / 1e9
    shape = shape_of(config.model)
    cost = weights_gb(shape, config.bits) if shape else 0.0
    with suppress(UserError):  # on bad data, of which it is told below
        cost = estimate(config, on_cpu()).peak_gb or 0.0
    memory = f"{decimal(about.memory_gb, 1)} GB, dos quais {decimal(limit, 1)} livres para treinar"
    remedy = (
        f"o perfil {profile} pede {decimal(cost, 1)} GB: feche outros programas; «farense-qlora fit» mede"
    )
    yield Check("Memória", limit >= cost, memory, remedy)
    slowed = "; ".join(power())
    yield Check("Energia", not slowed, slowed or "nada abranda este computador", "ligue-o à corrente")

    for name, folder in (("Treinos", RUNS), ("Resultados", OUTPUT), ("Cache", CACHE)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            yield Check(name, True, f"{folder}, pode escrever-se")
        except OSError as error:
            yield Check(name, False, str(disk_error(error, folder)), f"chmod u+w {folder}")

    mini, download = profile == "mini", download_gb(config)
    checkpoints = (config.keep_last + 2) * checkpoint_bytes(shape.trainable(config)) / 1e9 if shape else 0.0
    for name, folder, needed in (("Disco", RUNS, checkpoints), ("Disco dos modelos", HUB, download)):
        free = free_gb(folder)
        remedy = f"liberte espaço: precisa de {size(needed)} em {folder}"
        yield Check(name, free >= needed, f"{size(free)} livres", remedy)

    for source in (Config().train_data, Config().val_data):
        name = f"Dados ({Path(source).stem})"
        try:
            yield Check(name, True, counted(len(read_rows(source)), "linha"))
        except UserError as error:
            yield Check(name, False, str(error), "farense-qlora prepare")

    where = "incluído no repositório" if mini else "já descarregado"
    if download:
        where = f"{decimal(download, 1)} GB por descarregar"
    possible = not download or os.environ.get("HF_HUB_OFFLINE") != "1"
    yield Check("Modelo base", possible, f"{config.model}, {where}", "tire HF_HUB_OFFLINE do ambiente")


def free_gb(folder: Path) -> float:
    """What is free, in GB, on the disk where `folder` is or will be."""
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free / 1e9


def _is_installed(wanted: Requirement) -> bool:
    try:
        return wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False
