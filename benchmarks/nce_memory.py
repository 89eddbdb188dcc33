"""Peak memory of the loss of NCE with its gradient, each form in a process of its own.

    python benchmarks/nce_memory.py plain cpu 2048 32000 128   # form, device, tokens, vocabulary, k

Prints bytes; `nce.py` runs it once for each form.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import torch

from negdistill.method.nce import distilled

FORMS = ("plain", "chunked", "chunked, top-k")


def peak_bytes(form: str, tokens: int, vocabulary: int, k: int, device: str) -> int:
    """Most bytes of the loss and its gradient in use at once, besides logits and teacher, in this process."""
    torch.manual_seed(0)
    logits = torch.randn(tokens, vocabulary, device=device).requires_grad_()
    teacher = torch.randn(tokens, vocabulary, device=device).log_softmax(1)
    targets, weight = torch.arange(tokens, device=device) % vocabulary, torch.ones(tokens, device=device)
    ids = None
    if form == "chunked, top-k":
        values, ids = teacher.topk(k, 1)
        teacher = torch.cat([values, teacher.scatter(1, ids, float("-inf")).logsumexp(1, keepdim=True)], 1)
    small = distilled(logits[:1], targets[:1], teacher[:1], weight[:1], None if ids is None else ids[:1])
    torch.autograd.grad(small.sum(), logits)  # what is loaded at the first call does not count
    logits = logits + 0  # as the output layer gives them
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak until now
        before = status("VmRSS")
    if form == "plain":
        log_probs = logits.log_softmax(1)
        hard = -log_probs.gather(1, targets[:, None]).squeeze(1)
        (0.5 * hard - 0.5 * weight * (teacher.exp() * log_probs).sum(1)).sum().backward()
    else:
        distilled(logits, targets, teacher, weight, ids, overwrite=True).sum().backward()
    return (torch.cuda.max_memory_allocated() if device == "cuda" else status("VmHWM")) - before


def status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_memory(device: str, tokens: int, vocabulary: int, k: int) -> dict[str, int]:
    """`peak_bytes` of every form."""
    sizes = [device, *map(str, (tokens, vocabulary, k))]
    commands = {form: [sys.executable, __file__, form, *sizes] for form in FORMS}
    return {form: int(subprocess.check_output(command, text=True)) for form, command in commands.items()}


if __name__ == "__main__":
    form, device, *sizes = sys.argv[1:]
    tokens, vocabulary, k = map(int, sizes)
    print(peak_bytes(form, tokens, vocabulary, k, device))
