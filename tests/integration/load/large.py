"""A tensor of 3 GiB is declared, pushed and pulled, by the library and, the pull, by grpcio; a tree of 100,000 leaves is
declared, listed and frozen. Prints how long each took. By hand, on a machine with 10 GiB to spare:

    large.py BUILD_DIR [--mib=3072] [--leaves=100000]
"""

import argparse
import os
import subprocess
import sys
import time

import numpy as np

from load import PROGRAMS, harness

PERIOD = 1000003  # of large.c's gradients


def run(address, what, count):
    print(f"{what} {count}, load {os.getloadavg()[0]:.1f}:", flush=True)
    subprocess.run([os.path.join(PROGRAMS, "large"), address, what, str(count)], check=True)


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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=3072)
    parser.add_argument("--leaves", type=int, default=100000)
    options = parser.parse_args()
    flags = ("--group=default=sgd(lr=1)", "--max-staged=4GiB", "--max-tree=8GiB")
    if options.leaves:
        server = harness.Server(*flags)
        run(server.address, "leaves", options.leaves)
        server.stop()
    if options.mib:
        server = harness.Server(*flags)
        run(server.address, "tensor", options.mib)
        pull(server.address, options.mib)
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
