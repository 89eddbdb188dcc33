"""A test file as a script in two processes that share one training, on CPUs of one thread each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATHS = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
ALONE = {"PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
# without a GPU or MPI it prepares the environment but starts one process: torchrun starts both
ACCELERATE = [sys.executable, *"-m accelerate.commands.launch --num_processes 2 --cpu --no_python".split()]


def in_two_processes(script: str, *arguments: object, through: Sequence[str] = ()) -> None:
    """Run a script until both of its processes have ended; CalledProcessError where one fails.

    through  what starts torchrun; by itself it has the variable that ACCELERATE sets
    """
    own = ALONE if through else ALONE | {"ACCELERATE_USE_CPU": "true"}
    command = [*through, *TORCHRUN, script, *map(str, arguments)]
    subprocess.run(command, env=os.environ | own, check=True, capture_output=True, timeout=600)
