"""What Transformers 5 writes of positions, where mlx-lm does not look, counts; or the model is refused."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm import load
from mlx_lm.utils import _get_classes
from tiny import SHAPE

from farense_qlora.config import Config
from farense_qlora.errors import UserError
from farense_qlora.exporting.formats import write_fused
from farense_qlora.model.base import load_base
from farense_qlora.model.folder import name_for_mlx_lm

TOKENS = mx.array([[1, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140]])
THETA = 500.0
STRETCHED = {"factor": 4.0, "original_max_position_embeddings": 16}
KINDS = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "llama3": {**STRETCHED, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "yarn": STRETCHED,
}


def saved(model: Path, folder: Path, **changes: object) -> Path:
    """A copy of `model` in `folder` with other keys in its config.json; None takes one out."""
    shutil.copytree(model, folder)
    config = {**json.loads((folder / "config.json").read_text(encoding="utf-8")), **changes}
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def new_style(model: Path, folder: Path, kind: str = "default", **settings: object) -> Path:
    """As `saved`, with `rope_parameters` and nothing else of positions, as Transformers 5 writes them."""
    rope = {"rope_type": kind, "rope_theta": THETA, **KINDS[kind], **settings}
    return saved(model, folder, rope_theta=None, rope_parameters=rope)


def built(folder: Path, tokenizer: Path, config: dict[str, object]) -> Path:
    """A random model of any family, with the tokenizer of another."""
    vocabulary = json.loads((tokenizer / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    config = {**SHAPE, "vocab_size": vocabulary, "eos_token_id": 2, **config}
    config = {key: value for key, value in config.items() if value is not None}
    shutil.copytree(tokenizer, folder, ignore=shutil.ignore_patterns("model*", "config.json"))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    cls, settings = _get_classes(config)
    mx.random.seed(0)
    weights = {name: array * 4 for name, array in tree_flatten(cls(settings.from_dict(config)).parameters())}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return folder


def logits(folder: Path, bits: int = 16) -> mx.array:
    return load_base(Config(model=str(folder), bits=bits)).model(TOKENS)


@pytest.mark.parametrize("kind", KINDS)
def test_positions_count_as_they_did_under_their_old_keys(
    tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    scaling = {"type": kind, "rope_type": kind, **KINDS[kind]} if KINDS[kind] else None
    new = logits(new_style(tiny_model, tmp_path / "novo", kind))
    old = logits(saved(tiny_model, tmp_path / "velho", rope_theta=THETA, rope_scaling=scaling))
    assert mx.allclose(new, old, atol=1e-4)
    assert not mx.allclose(new, logits(tiny_model), atol=0.1)


def test_the_factor_on_attention_counts_too(tiny_model: Path, tmp_path: Path) -> None:
    plain = logits(new_style(tiny_model, tmp_path / "yarn", "yarn"))
    implied = 0.1 * 1.3862943611 + 1  # Peng et al., 2023: 0.1 ln(4) + 1
    assert mx.allclose(
        plain, logits(new_style(tiny_model, tmp_path / "dito", "yarn", attention_factor=implied))
    )
    louder = logits(new_style(tiny_model, tmp_path / "mais", "yarn", attention_factor=1.5))
    assert not mx.allclose(plain, louder, atol=0.1)


def test_a_base_that_is_not_written_is_the_one_transformers_takes(tiny_model: Path, tmp_path: Path) -> None:
    qwen = {"model_type": "qwen2", "rope_theta": None, "rope_parameters": {"rope_type": "default"}}
    folder = built(tmp_path / "qwen", tiny_model, qwen)
    same = saved(folder, tmp_path / "dito", rope_theta=10000.0, rope_parameters=None)
    assert mx.allclose(logits(folder), logits(same), atol=1e-4)  # mlx-lm's own would be a million


def test_each_type_of_layer_has_its_own(tiny_model: Path, tmp_path: Path) -> None:
    gemma = {
        "model_type": "gemma3_text",
        "rope_theta": None,
        "num_hidden_layers": 4,
        "head_dim": 16,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5},
            "sliding_attention": {"rope_type": "default", "rope_theta": THETA},
        },
    }
    folder = built(tmp_path / "gemma", tiny_model, gemma)
    old = saved(
        folder,
        tmp_path / "velha",
        rope_parameters=None,
        rope_theta=5e5,
        rope_local_base_freq=THETA,
        rope_scaling={"rope_type": "linear", "factor": 2.0},
        sliding_window_pattern=2,
    )
    assert mx.allclose(logits(folder), logits(old), atol=1e-4)
    other = {**gemma["rope_parameters"], "sliding_attention": gemma["rope_parameters"]["full_attention"]}
    with pytest.raises(UserError, match="RoPE «linear», na camada 0"):
        load_base(Config(model=str(saved(folder, tmp_path / "outra", rope_parameters=other)), bits=16))


@pytest.mark.parametrize(
    "config",
    [
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": THETA, **STRETCHED, "truncate": False}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": THETA, "partial_rotary_factor": 0.5}},
        {"rope_parameters": {"rope_type": "novidade", "rope_theta": THETA}},
        {
            "model_type": "gemma2",
            "rope_parameters": {"rope_type": "linear", "rope_theta": THETA, "factor": 2.0},
        },
        {"model_type": "glm", "head_dim": 16, "partial_rotary_factor": 0.5},  # which mlx-lm's does not read
    ],
    ids=["truncate", "partial", "unknown", "family", "old key"],
)
def test_what_mlx_lm_cannot_compute_is_refused(
    tiny_model: Path, tmp_path: Path, config: dict[str, object]
) -> None:
    gemma = {"head_dim": 16, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 50.0}
    folder = built(tmp_path / "model", tiny_model, {**gemma, "rope_theta": None, **config})
    with pytest.raises(UserError) as error:
        load_base(Config(model=str(folder), bits=16))
    assert "\n" not in str(error.value)
    assert "RoPE «" in str(error.value) or "novidade" in str(error.value)


@pytest.mark.parametrize("bits", [4, 16])
def test_plain_mlx_lm_computes_the_same_from_the_folder_of_the_base(
    tiny_model: Path, tmp_path: Path, bits: int
) -> None:
    base = load_base(Config(model=str(new_style(tiny_model, tmp_path / "novo", "llama3")), bits=bits))
    theirs = load(str(base.path))[0](TOKENS)
    assert mx.allclose(base.model(TOKENS), theirs, atol=1e-3)
    write_fused(base, None, tmp_path / "fundido", dtype=mx.float32)
    assert mx.allclose(base.model(TOKENS), load(str(tmp_path / "fundido"))[0](TOKENS), atol=1e-3)
    assert mx.allclose(base.model(TOKENS), logits(tmp_path / "fundido"), atol=1e-3)  # read by us again


def test_the_users_folder_stays_as_it_was(tiny_model: Path, tmp_path: Path) -> None:
    folder = new_style(tiny_model, tmp_path / "novo", "yarn")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    path = load_base(Config(model=str(folder), bits=16)).path
    assert path != folder and load_base(Config(model=str(folder), bits=16)).path == path
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_people_are_told_a_folder_that_plain_mlx_lm_reads_right(tiny_model: Path, tmp_path: Path) -> None:
    folder = new_style(tiny_model, tmp_path / "novo", "linear")
    told = name_for_mlx_lm(str(folder))
    assert told != str(folder) and mx.allclose(load(told)[0](TOKENS), logits(folder), atol=1e-4)
    assert name_for_mlx_lm(str(tiny_model)) == str(tiny_model)
    assert name_for_mlx_lm("dono/nome") == "dono/nome"
    assert Path(name_for_mlx_lm("mini")).is_dir()
