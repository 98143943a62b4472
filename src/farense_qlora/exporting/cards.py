"""What people read beside an export, made for that very folder: the model card and the integration guide."""

from pathlib import Path
from typing import Any

from ..answers.generate import MAX_TOKENS
from ..config import Config
from ..model.folder import name_for_mlx_lm
from ..text import decimal, percent, scientific
from .formats import GGUF

QUESTION = "Quando foi fundado o Farense?"
WHAT = {
    "mlx": "Adaptador LoRA no formato do mlx-lm",
    "peft": "Adaptador LoRA no formato do PEFT (PyTorch)",
    "fused": "Modelo completo em 16 bits (float16), com o adaptador nos pesos, para mlx-lm e Transformers",
    "fused-4bit": "Modelo completo em 4 bits, com o adaptador nos pesos, para o mlx-lm",
    "gguf": "Modelo completo num ficheiro GGUF, com o adaptador nos pesos, para o llama.cpp",
    "ollama": "Modelo completo em GGUF e o seu Modelfile, para o Ollama",
}
LIBRARY = {"peft": "peft", "gguf": "gguf", "ollama": "gguf"}  # the others are mlx's


def model_card(about: dict[str, Any], report: dict[str, Any], folder: Path) -> str:
    """The README of the export, with the header that the hub reads, in Portuguese."""
    config, kind = Config.parse(about["config"]), about["format"]
    header = ["language: pt", "pipeline_tag: text-generation", f"library_name: {LIBRARY.get(kind, 'mlx')}"]
    if config.model.count("/") == 1 and not config.model.startswith((".", "/", "~")):
        header.append(f"base_model: {config.model}")
        header.append(f"base_model_relation: {'adapter' if kind in ('mlx', 'peft') else 'finetune'}")
    header += ["tags:", "- lora" if config.bits == 16 else "- qlora", "- farense"]
    loss = about["metrics"]["val_loss"]
    return (
        "\n".join(["---", *header, "---"])
        + f"""

# {folder.name}

{WHAT[kind]}. É **{config.model}** (base em {config.bits} bits) com um adaptador de ordem {config.rank},
treinado com perguntas e respostas sobre o Sporting Clube Farense.

| | |
|---|---|
| Treino | `{about["run"]}`, {about["metrics"]["steps"]} atualizações, {about["trained"] or "por acabar"} |
| Perda na validação | {"sem avaliação" if loss is None else decimal(loss, 4)} |
| Dados de treino | `{config.train_data}` |{_started_from(config)}

A configuração inteira, a impressão digital dos dados e as versões estão em `metadata.json`.

## Perguntar

{_indented(_command_line(about, folder))}

`INTEGRATION_GUIDE.md` mostra como o chamar de Python, da linha de comandos, por HTTP e de Node.

## Verificação

Depois de escrito, foi carregado por {report["consumer"]}, num processo à parte, e comparado com o modelo
treinado em {report["questions"]} perguntas de validação (`verification.json`):

| | |
|---|---|
| Divergência (KL) do modelo treinado | {scientific(report["kl"])} |
| Divergência (KL) da base sem adaptador | {scientific(report["kl_base"])} |
| Mesmo token mais provável | {percent(report["top1"])} |
| Mesma resposta | {percent(report["same_answers"])} |
{_not_checked(kind)}
## Limites

Responde ao que foi ensinado. Sobre o que não estava nos dados de treino inventa com a mesma segurança:
confirme as respostas antes de as publicar.
"""
    )


def integration_guide(about: dict[str, Any], folder: Path) -> str:
    """How a program asks what is in `folder`: from Python, a shell, HTTP and Node with Express."""
    config, kind = Config.parse(about["config"]), about["format"]
    serve, address = _server(about, folder)
    named = f'"model": "{folder.name}", ' if kind == "ollama" else ""
    node_model = f'model: "{folder.name}", ' if kind == "ollama" else ""
    return f"""# Usar «{folder.name}» num programa

{WHAT[kind]}. Tudo o que se segue é para esta pasta; se a mudar de sítio, mude o caminho.
{_base_note(config, kind)}
## Python

```python
{_python(config, kind, folder)}
```

## Linha de comandos

```sh
{_command_line(about, folder)}
```

## HTTP

Carregar o modelo demora; um servidor fá-lo uma vez. Este fala a API de conversa da OpenAI, só para este
computador:

```sh
{serve}
```

Noutro terminal:

```sh
curl {address}/v1/chat/completions -H "Content-Type: application/json" \\
    -d '{{{named}"messages": [{{"role": "user", "content": "{QUESTION}"}}],
         "temperature": 0, "max_tokens": {MAX_TOKENS}}}'
```

## Node e Express

Com o servidor acima a correr, `npm install express` e, em `server.mjs`:

```js
import express from "express";

const MODEL = process.env.MODEL_URL ?? "{address}";
const KEY = process.env.FARENSE_API_KEY;

const app = express();
app.use(express.json({{ limit: "16kb" }}));

app.post("/api/ask", async (request, response) => {{
  const prompt = request.body?.prompt;
  if (typeof prompt !== "string" || !prompt.trim()) {{
    return response.status(400).json({{ status: "error", error: "falta a pergunta" }});
  }}
  try {{
    const answer = await fetch(`${{MODEL}}/v1/chat/completions`, {{
      method: "POST",
      headers: {{ "Content-Type": "application/json", ...(KEY && {{ Authorization: `Bearer ${{KEY}}` }}) }},
      body: JSON.stringify({{
        {node_model}messages: [{{ role: "user", content: prompt }}],
        temperature: 0,
        max_tokens: {MAX_TOKENS},
      }}),
      signal: AbortSignal.timeout(60_000),
    }});
    if (!answer.ok) throw new Error(`o modelo respondeu ${{answer.status}}`);
    const body = await answer.json();
    response.json({{ prompt, response: body.choices[0].message.content, status: "ok" }});
  }} catch {{
    response.status(503).json({{ prompt, response: "", status: "error", error: "o modelo não responde" }});
  }}
}});

app.listen(process.env.PORT ?? 3000, "127.0.0.1");
```

```sh
node server.mjs
```

E noutro terminal:

```sh
curl http://127.0.0.1:3000/api/ask -H "Content-Type: application/json" -d '{{"prompt": "{QUESTION}"}}'
```
"""


def _started_from(config: Config) -> str:
    """Whose weights training began with, as a row of the card's table."""
    return f"\n| Partiu de | `{config.from_adapter}` |" if config.from_adapter else ""


def _base_note(config: Config, kind: str) -> str:
    """Which base an adapter needs, where it is not plain."""
    base = name_for_mlx_lm(config.model)
    if kind == "mlx" and config.bits == 4 and config.model != "mini":
        return f"""
O adaptador foi treinado sobre a base em 4 bits. Se `{base}` for um modelo de 16 bits, faça primeiro a
mesma cópia em 4 bits e dê o nome dela (`base-4bits`) nos comandos abaixo:

    mlx_lm.convert --hf-path {base} --mlx-path base-4bits -q
"""
    if kind == "peft" and config.bits == 4:
        return f"""
O PEFT precisa da base em 16 bits, no formato do Hugging Face. O adaptador foi treinado, e verificado, sobre
os pesos que a quantização em 4 bits deixou; sobre a base original as respostas podem diferir um pouco. Os
pesos exatos obtêm-se de um modelo já quantizado para o MLX com:

    mlx_lm.convert --hf-path {base} --mlx-path base-16bits --dequantize
"""
    return ""


def _python(config: Config, kind: str, folder: Path) -> str:
    base = name_for_mlx_lm(config.model)
    messages = f'messages = [{{"role": "user", "content": "{QUESTION}"}}]'
    if kind in ("mlx", "fused", "fused-4bit"):
        loaded = f'load("{base}", adapter_path="{folder}")' if kind == "mlx" else f'load("{folder}")'
        return f"""from mlx_lm import generate, load

model, tokenizer = {loaded}
{messages}
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False)
print(generate(model, tokenizer, prompt, max_tokens={MAX_TOKENS}))"""
    if kind == "peft":
        base = "base-16bits" if config.model == "mini" else config.model
        return f"""from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{base}", dtype="auto")
model = PeftModel.from_pretrained(base, "{folder}")
tokenizer = AutoTokenizer.from_pretrained("{base}")
{messages}
prompt = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, enable_thinking=False, return_dict=True, return_tensors="pt"
)
answer = model.generate(**prompt, do_sample=False, max_new_tokens={MAX_TOKENS})
print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))"""
    return f"""from llama_cpp import Llama

model = Llama("{folder / GGUF}", n_ctx=2048, verbose=False)
{messages}
answer = model.create_chat_completion(messages, temperature=0, max_tokens={MAX_TOKENS})
print(answer["choices"][0]["message"]["content"])"""


def _command_line(about: dict[str, Any], folder: Path) -> str:
    config, kind = Config.parse(about["config"]), about["format"]
    said = f'--prompt "{QUESTION}" --max-tokens {MAX_TOKENS}'
    if kind == "mlx":
        return (
            f'farense-qlora ask --adapter {folder} "{QUESTION}"\n\n'
            f"# ou, só com o mlx-lm:\n"
            f"mlx_lm.generate --model {name_for_mlx_lm(config.model)} --adapter-path {folder} \\\n    {said}"
        )
    if kind in ("fused", "fused-4bit"):
        return f"mlx_lm.generate --model {folder} \\\n    {said}"
    if kind == "gguf":
        return f'llama-cli -m {folder / GGUF} --temp 0 -n {MAX_TOKENS} -st -p "{QUESTION}"'
    if kind == "ollama":
        return f'ollama create {folder.name} -f {folder / "Modelfile"}\nollama run {folder.name} "{QUESTION}"'
    return f'farense-qlora ask --run {about["run"]} "{QUESTION}"'


def _server(about: dict[str, Any], folder: Path) -> tuple[str, str]:
    """The command that serves the export, and the address where it then is."""
    here = "http://127.0.0.1:8080"
    return {
        "mlx": (f"farense-qlora serve --adapter {folder} --port 8080", here),
        "peft": (f"farense-qlora serve --run {about['run']} --port 8080", here),
        "fused": (f"mlx_lm.server --model {folder} --port 8080", here),
        "fused-4bit": (f"mlx_lm.server --model {folder} --port 8080", here),
        "gguf": (f"llama-server -m {folder / GGUF} --port 8080", here),
        "ollama": (f"ollama create {folder.name} -f {folder / 'Modelfile'}", "http://127.0.0.1:11434"),
    }[about["format"]]


def _not_checked(kind: str) -> str:
    if kind != "ollama":
        return ""
    return (
        "\nFoi o ficheiro GGUF que se verificou, com o llama.cpp, sobre o qual o Ollama está feito. O\n"
        "`Modelfile` não foi experimentado num Ollama.\n"
    )


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())
