"""Run the tests that rounding could change, as other kinds of processors would.

python tests/as_other_processors.py

Libraries choose their kernels by what the processor can do, and kernels add up in
different orders. Each kind below is one that a user may have; that of this machine is
left out, since the tests have run on it already.
"""

import os
import subprocess
import sys
from pathlib import Path

from torch.backends.cpu import get_cpu_capability

KINDS = {
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "DEFAULT": {"ATEN_CPU_CAPABILITY": "default"},
}
# Runs that are killed test what is on disk, and take long.
PYTEST = ("-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", "-m", "rounding")


def main() -> None:
    native = get_cpu_capability()
    for kind, settings in KINDS.items():
        if kind == native:
            print(f"{kind} is what this processor is: not run again", flush=True)
            continue
        print(f"as a processor of the kind {kind}:", flush=True)
        run = subprocess.run(
            [sys.executable, *PYTEST, "-k", "not killed and not dies", "tests"],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "OMP_NUM_THREADS": "1", **settings},
            check=False,
        )
        if run.returncode:
            sys.exit(run.returncode)


if __name__ == "__main__":
    main()
