"""Run the examples in the docstrings of the front door: `python tests/examples.py RUN`, in FARENSE_HOME.

An example finds `fq`, the finished `run`, its `config` and `data`, its `base` and the `tuned` model, and an
empty `folder`.
"""

import doctest
import shutil
import sys
import tempfile
from pathlib import Path

import farense_qlora as fq
from farense_qlora.config import HOME, ROOT

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def main(name: str) -> int:
    shutil.copytree(ROOT / "data" / "facts", HOME / "data" / "facts", dirs_exist_ok=True)
    run = fq.Run.open(name)
    base = fq.load_base(run.config)
    known = {"fq": fq, "run": run, "config": run.config, "base": base, "data": fq.load_data(run.config, base)}
    known["folder"] = Path(tempfile.mkdtemp())
    known["tuned"] = fq.load_tuned(run.config, run.best_adapter)
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(optionflags=FLAGS)
    for public in fq.__all__:
        for test in finder.find(getattr(fq, public), public, globs=known):
            if not test.examples:
                print(f"{public}: no example")
                return 1
            runner.run(test)
    return 1 if runner.summarize().failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
