"""A model of the hub: how large it is beforehand, its bytes as they come, and an end by Ctrl-C after which it
goes on where it was."""

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from fcntl import LOCK_EX, flock
from hashlib import file_digest
from pathlib import Path
from typing import Any

from ..bar import Bar
from ..config import HOME, ROOT
from ..errors import Interrupted, UserError
from ..hub import KEPT, why_not_had
from ..text import size

MINIATURE = ROOT / "data" / "miniature" / "model"
# Those that mlx-lm takes, but no programs.
FILES = ["*.json", "model*.safetensors", "tokenizer.model", "*.tiktoken", "*.txt", "*.jsonl", "*.jinja"]
LARGE = 10_000_000  # bytes from which a file is worth going on with


def find_model(name: str) -> Path:
    """The folder of `name`, downloaded from the hub if it is not a folder here.

    Raises `UserError`, and `Interrupted` on Ctrl-C during a download; what came of it is kept.
    """
    if (path := local_folder(name)) is not None:
        return path
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(f"não encontro a pasta do modelo: {name}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import DryRunError
    from huggingface_hub.utils import disable_progress_bars, logging

    disable_progress_bars()  # ours says more
    logging.set_verbosity_error()  # of each try that failed
    try:
        with suppress(DryRunError):  # no answer: what follows takes the copy in the cache, or says why not
            _fetch(name, snapshot_download(name, allow_patterns=FILES, dry_run=True))
        return Path(snapshot_download(name, allow_patterns=FILES))
    except KeyboardInterrupt:
        raise Interrupted(f"interrompido: {KEPT}") from None
    except UserError:
        raise
    except Exception as error:  # the hub's client raises a dozen unrelated types when it cannot be reached
        raise UserError(why_not_had(name, error)) from error


def local_folder(name: str) -> Path | None:
    """The folder on this machine that `name` means, if it is one."""
    if name == "mini":
        return MINIATURE
    local = Path(name).expanduser()
    return next((path for path in (local, HOME / local) if path.is_dir()), None)


def _fetch(name: str, files: Sequence[Any]) -> None:
    """Download what is large of `files` into the hub's cache; its client, which takes it from there, would
    begin a file anew that was cut off. Raises `UserError` when the disk has no room or a file comes damaged.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import build_hf_headers

    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model") / "blobs"
    wanted = [file for file in files if file.will_download]
    large = []
    for file in wanted:
        if file.file_size > LARGE:
            url = hf_hub_url(name, file.filename, revision=file.commit_hash)
            large.append((url, get_hf_file_metadata(url)))
    if not large:
        return
    parts = [blobs / f"{about.etag}.incomplete" for _, about in large]
    have = sum(part.stat().st_size for part in parts if part.exists())
    whole = sum(file.file_size for file in wanted)
    blobs.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(blobs).free) < whole - have:
        raise UserError(
            f"o modelo {name} precisa de {size((whole - have) / 1e9)} e o disco de {blobs.parent} tem "
            f"{size(free / 1e9)} livres: liberte espaço, ou ponha HF_HOME noutro disco"
        )
    before = f", dos quais já cá estão {size(have / 1e9)}" if have else ""
    print(
        f"o modelo {name} tem {size(whole / 1e9)} para descarregar{before}; Ctrl-C interrompe: {KEPT}",
        file=sys.stderr,
    )
    with _Bytes(total=whole, initial=have, desc="a descarregar", mininterval=0.5) as bar:
        for (url, about), part in zip(large, parts, strict=True):
            with open(part, "ab+") as file:
                flock(file, LOCK_EX)  # another process may be at it
                if (target := part.with_suffix("")).exists():
                    continue
                http_get(
                    url,
                    file,
                    resume_size=file.seek(0, os.SEEK_END),
                    headers=build_hf_headers(),
                    expected_size=about.size,
                    tqdm_class=lambda **_: nullcontext(bar),
                )
                file.seek(0)
                if len(about.etag) == 64 and file_digest(file, "sha256").hexdigest() != about.etag:
                    part.unlink()
                    raise UserError(f"o modelo {name} chegou estragado: repita, para o descarregar de novo")
                part.replace(target)
        bar.update(whole - bar.n)


class _Bytes(Bar):
    """A bar that counts bytes as people here write them."""

    def __init__(self, **options: Any):
        layout = "{desc}: {done} de {whole} |{bar}| {speed}/s, faltam {remaining}"
        super().__init__(**options, bar_format=layout)

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the layout may name."""
        about: dict[str, Any] = super().format_dict
        rate = about["rate"] or (about["n"] - about["initial"]) / max(about["elapsed"], 1e-3)
        sizes = {"done": about["n"], "whole": about["total"], "speed": rate}
        return about | {name: size(value / 1e9) for name, value in sizes.items()}
