"""A server, the load of `linear` on it, and what check.py says of the log; by hand for as long as one likes:

    run.py BUILD_DIR [--seconds N] [--rate N] [--seed N] [--log FILE]

100 transactions a second for 600 seconds, if not told otherwise. FILE keeps the log, some 80 bytes for each push.
"""

import argparse
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import harness  # takes BUILD_DIR
import check
import history

LINEAR = os.path.join(harness.BUILD_DIR, "tests", "integration", "linear", "linear")
FLAGS = [*(f"--group={name}=sgd(lr={rate})" for name, rate in check.RATES.items()), "--threads=3", "--rpc-threads=4"]
# The workers read the library's flags before each push; no heartbeat may change them in between.
FLAGS.append("--lease=1h")


def record(address, path, operations, rate=100, seed=1, timeout=None):
    """Makes the load on a server that has nothing yet, and returns its log, whose file is kept at path."""
    command = [LINEAR, f"--server={address}", f"--log={path}", f"--operations={operations}"]
    command += [f"--rate={rate}", f"--seed={seed}"]
    done = subprocess.run(
        command, stderr=subprocess.PIPE, text=True, env=harness.environment(), timeout=timeout, check=False
    )
    if done.returncode != 0 or done.stderr:
        raise AssertionError(f"linear ended with {done.returncode}: {done.stderr}")
    return history.read(path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = harness.Server(*FLAGS)
        path = options.log or os.path.join(folder, "log")
        try:
            log = record(server.address, path, options.seconds * options.rate, options.rate, options.seed)
            server.stop()
        finally:
            server.close()
    print("load of the machine:", *os.getloadavg())
    return check.report(log)


if __name__ == "__main__":
    sys.exit(main())
