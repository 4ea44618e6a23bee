"""A tensor of 3 GiB is declared, pushed and pulled, by the library and, the pull, by grpcio; a tree of 100,000 leaves is
declared, listed and frozen, and operated on in every other way while two workers push. Prints how long each took. By
hand, on a machine with 10 GiB to spare; large_test.py is a small one:

    large.py BUILD_DIR [--mib=3072] [--leaves=100000] [--operate=100000] [--of=100000]
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time

import numpy as np

from load import PROGRAMS, harness, resident_peak

PERIOD = 1000003  # of large.c's gradients


@contextlib.contextmanager
def serving(*flags):
    server = harness.Server(*flags)
    try:
        yield server
        server.stop()
    finally:
        server.close()


def run(address, what, count):
    print(f"{what} {count}, load {os.getloadavg()[0]:.1f}:", flush=True)
    subprocess.run([os.path.join(PROGRAMS, "large"), address, what, str(count)], check=True)


def operate(server, count, of):
    """Every operation on `count` of so many leaves."""
    print(f"surgery on {count} of {of} leaves, load {os.getloadavg()[0]:.1f}:", flush=True)
    program = os.path.join(PROGRAMS, "surgery")
    subprocess.run([program, server.address, str(count), str(of), str(server.pid)], check=True)
    print(f"the server had {resident_peak(server.pid) >> 20} MiB at most", flush=True)


def pull(address, mib):
    """The whole tensor over grpcio, each chunk looked at as it comes and dropped. A cut may split an element."""
    with harness.Client(address) as client:
        begin, offset, looked, split = time.monotonic(), 0, 0.0, b""
        for response in client.ps.Pull(harness.wire.PullRequest(paths=["large"])):
            for chunk in response.chunks:
                assert chunk.offset == offset
                look = time.monotonic()
                data = split + chunk.data if split else chunk.data
                values = np.frombuffer(data, "<f4", count=len(data) // 4)
                wanted = (np.arange(values.size, dtype=np.int64) + (offset - len(split)) // 4) % PERIOD
                assert np.array_equal(values, -wanted.astype("<f4"))
                split = data[4 * values.size :]
                looked += time.monotonic() - look
                offset += len(chunk.data)
        took = time.monotonic() - begin - looked
    assert offset == mib << 20, offset
    print(f"grpcio   {took:8.3f} s  {offset / took / 1e9:6.2f} GB/s", flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=3072)
    parser.add_argument("--leaves", type=int, default=100000)
    parser.add_argument("--operate", type=int, default=100000)
    parser.add_argument("--of", type=int, default=100000)
    options = parser.parse_args(arguments)
    flags = ("--group=default=sgd(lr=1)", "--max-staged=4GiB", "--max-tree=8GiB")
    if options.leaves:
        with serving(*flags) as server:
            run(server.address, "leaves", options.leaves)
    if options.operate:
        with serving("--group=default=adam(lr=0.001)", "--max-tree=8GiB") as server:
            operate(server, options.operate, options.of)
    if options.mib:
        with serving(*flags) as server:
            run(server.address, "tensor", options.mib)
            pull(server.address, options.mib)


if __name__ == "__main__":
    sys.exit(main())
