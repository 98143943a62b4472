"""The Hugging Face Hub: why it did not give what was asked of it, and what to do, in Portuguese."""

from typing import Literal

from .errors import disk_error

KEPT = "o que já veio fica guardado, e da próxima vez continua daí"
TOKEN = "crie um token de leitura em huggingface.co/settings/tokens e corra «hf auth login»"


def why_not_had(name: str, error: Exception, kind: Literal["model", "dataset"] = "model") -> str:
    """Why the hub did not give the model or dataset `name`, and what to do, in Portuguese."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    what, page, kept = f"modelo {name}", name, f"; {KEPT}"
    if kind == "dataset":
        what, page, kept = f"conjunto de dados {name}", f"datasets/{name}", ""
    # Without an answer the client looks for the model on the disk, and reports that it is not there.
    cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
    if isinstance(cause, GatedRepoError):
        return f"o {what} tem uma licença por aceitar: aceite-a em huggingface.co/{page}, {TOKEN}"
    if isinstance(cause, RepositoryNotFoundError):
        return (
            f"no Hugging Face Hub não há nenhum {what}: confira o nome (se for privado, faça «hf auth "
            "login» primeiro)"
        )
    if type(cause).__name__ == "OfflineModeIsEnabled":
        return (
            f"o {what} ainda não foi descarregado, e HF_HUB_OFFLINE proíbe a rede: tire-o do ambiente, ou "
            "indique uma pasta local"
        )
    if isinstance(cause, HfHubHTTPError) and cause.response is not None:
        if (status := cause.response.status_code) in (401, 403):
            return f"o Hugging Face Hub não aceita o seu token para o {what} (erro {status}): {TOKEN}"
        return f"o Hugging Face Hub não deu o {what} (erro {status}): tente daqui a uns minutos{kept}"
    if isinstance(cause, OSError) and cause.errno and cause.filename:
        return str(disk_error(cause, HF_HUB_CACHE))
    return (
        f"não consigo obter o {what} do Hugging Face Hub ({type(cause).__name__}): ligue-se à rede ou "
        f"indique uma pasta local{kept}"
    )
