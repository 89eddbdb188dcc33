"""Memory: what was freed goes back to the system, now and then."""

import platform
import subprocess
import sys

import pytest

from negdistill.runs import memory

HELD = """
import ctypes, resource
from negdistill.runs import memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(100_000) for _ in range(3000)]
for block in blocks:
    ctypes.memset(block, 1, 100_000)
for block in blocks[:-1]:  # the last one keeps the heap from shrinking
    libc.free(block)
held = resident()
memory.give_back()
print(held - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_handed_back():
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 200  # MiB


def test_it_is_done_once_in_a_while(monkeypatch):
    done, now = [], iter([150.0, 150.0, 269.0, 271.0, 271.0])
    monkeypatch.setattr(memory, "_last", 0.0)
    monkeypatch.setattr(memory, "_trim", lambda: done.append)
    monkeypatch.setattr(memory.time, "monotonic", lambda: next(now))
    for _ in range(3):
        memory.give_back_sometimes()
    assert done == [0, 0]
