"""The one exception that users see: a sentence in Portuguese that says what, where and what to do."""

import errno

_REASONS = {
    errno.ENOENT: "não existe",
    errno.EACCES: "sem permissão",
    errno.EPERM: "sem permissão",
    errno.EROFS: "o disco é só de leitura",
    errno.ENOSPC: "o disco está cheio",
    errno.EDQUOT: "a quota de disco esgotou-se",
    errno.EIO: "o disco falhou (erro de leitura ou escrita)",
    errno.ENOTDIR: "uma parte do caminho não é uma pasta",
    errno.EISDIR: "é uma pasta",
    errno.EADDRINUSE: "a porta está ocupada",
    errno.EADDRNOTAVAIL: "este endereço não é deste computador",
    errno.EEXIST: "já existe e não é uma pasta",
}


class UserError(Exception):
    """Bad input (data, config, checkpoint, disk); the CLI prints it on one line and exits with code 2."""


class DiskFullError(UserError):
    """There is no room left to write; nothing saved before was touched, and trying again later may work."""


def disk_error(error: OSError, path: object) -> UserError:
    """The error to raise when `path` could not be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return (DiskFullError if full else UserError)(f"não consigo escrever em {path}: {reason(error)}")


def reason(error: OSError) -> str:
    """Why the system refused, in Portuguese."""
    return _REASONS.get(error.errno or 0, f"erro {error.errno} do sistema")
