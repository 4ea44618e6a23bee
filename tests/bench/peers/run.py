#!/usr/bin/env python3
"""Measures parameter servers side by side on the workload resnet50-flat. See README.md; `run.sh` calls this.

Rounds are interleaved: each round measures the limits and every configuration of every system once, in rotated order.
Every process is a child of this one, started in its own session and ended by its pid. All traffic is on 127.0.0.1.
"""
import argparse
import datetime
import json
import os
import platform
import queue
import socket
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
STEP_GB = 25557032 * 4 / 1e9
TICK = os.sysconf("SC_CLK_TCK")
OPTS = ["sgd", "momentum", "adam"]
SHAPES = os.path.join(os.path.dirname(HERE), "resnet50.shapes")
SYSTEMS = ["espalier", "espalier_bf16", "mxnet", "tensorflow", "torch", "pslite", "pslite_each", "stockgrpc", "rawtcp"]


class Process:
    """A child whose lines that start with @ are JSON for us; everything else goes to the log."""

    def __init__(self, name, argv, log, env=None):
        self.name, self.lines = name, queue.Queue()
        self.p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                                  env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}, start_new_session=True)
        self.log = log
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.p.stdout:
            if line.startswith("@"):
                self.lines.put(json.loads(line[1:]))
            else:
                self.log.write("[%s] %s" % (self.name, line))
                self.log.flush()
        self.lines.put(None)

    def send(self, text):
        self.p.stdin.write(text + "\n")
        self.p.stdin.flush()

    def get(self, timeout):
        try:
            line = self.lines.get(timeout=timeout)
        except queue.Empty:
            raise RuntimeError("%s: no answer in %d s" % (self.name, timeout)) from None
        if line is None:
            raise RuntimeError("%s ended early, status %s" % (self.name, self.p.poll()))
        return line

    def cpu(self):
        with open("/proc/%d/stat" % self.p.pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def peak_mb(self):
        with open("/proc/%d/status" % self.p.pid) as f:
            for line in f:
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) * 1024 / 1e6

    def end(self, grace=0.0):
        try:
            self.p.wait(grace)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait(10)


def free_port(span=4):
    """A port on 127.0.0.1 that is free together with the span - 1 that follow it."""
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            base = s.getsockname()[1]
        if base + span > 65000:
            continue
        try:
            for i in range(span):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", base + i))
            return base
        except OSError:
            continue


class Systems:
    """How each system is started: name -> function(opt, workers) -> [(role, argv, env)], the server among them.

    The order is the order of starting; a worker marked "later" is started once worker 0 is ready.
    """

    def __init__(self, work, espalier):
        self.work, self.build = work, espalier

    def path(self, *parts):
        return os.path.join(self.work, *parts)

    def espalier(self, opt, workers, wire="f32"):
        # launch.c starts the server of all benchmarks with these options, and no others.
        optimizer = {"sgd": "sgd(lr=0.01)", "momentum": "sgd(lr=0.01, momentum=0.9)", "adam": "adam(lr=0.01)"}[opt]
        address = "127.0.0.1:%d" % free_port()
        server = [os.path.join(self.build, "server", "espalierd"), "--listen=" + address, "--log-level=warn",
                  "--max-staged=1GiB", "--group=default=" + optimizer]
        espbench = os.path.join(self.build, "tests", "bench", "espbench")
        worker = lambda i: [espbench, "peer", "--server=" + address, "--optimizer=" + optimizer, "--wire=" + wire,
                            "--rank=%d" % i]
        return [("server", server, {})] + [("worker", worker(i), {}) for i in range(workers)]

    def espalier_bf16(self, opt, workers):
        return self.espalier(opt, workers, "bf16")

    def dmlc(self, argv, opt, workers, env):
        port = free_port()
        base = {"DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": str(port), "DMLC_NODE_HOST": "127.0.0.1",
                "DMLC_INTERFACE": "lo", "DMLC_NUM_SERVER": "1", "DMLC_NUM_WORKER": str(workers), **env}
        out = [("scheduler", argv("scheduler", 0), {**base, "DMLC_ROLE": "scheduler"}),
               ("server", argv("server", 0), {**base, "DMLC_ROLE": "server"})]
        return out + [("worker", argv("worker", i), {**base, "DMLC_ROLE": "worker"}) for i in range(workers)]

    def mxnet(self, opt, workers, threads="1"):
        python, script = self.path("mx", "bin", "python"), os.path.join(HERE, "mxnet_peer.py")
        return self.dmlc(lambda role, i: [python, script, role, opt, str(i)], opt, workers,
                         {"OMP_NUM_THREADS": threads})

    def pslite(self, opt, workers, mode="one"):
        binary, file = self.path("build", "pslite_peer"), SHAPES
        return self.dmlc(lambda role, i: [binary, file, opt, mode], opt, workers, {})

    def pslite_each(self, opt, workers):
        return self.pslite(opt, workers, "each")

    def tensorflow(self, opt, workers):
        python, script, port = self.path("tf", "bin", "python"), os.path.join(HERE, "tf_peer.py"), str(free_port())
        args = lambda role, i: [python, script, role, opt, str(i), str(workers), port]
        out = [("server", args("ps", 0), {})]
        return out + [("worker" if i == 0 else "later", args("worker", i), {}) for i in range(workers)]

    def torch(self, opt, workers):
        script, port = os.path.join(HERE, "torch_peer.py"), str(free_port())
        env = {"TP_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo"}
        args = lambda role, i: ["/usr/bin/python3", script, role, opt, str(i), str(workers), port]
        return [("server", args("server", 0), env)] + [("worker", args("worker", i), env) for i in range(workers)]

    def stockgrpc(self, opt, workers):
        python, script, port = self.path("grpc", "bin", "python"), os.path.join(HERE, "stock_peer.py"), str(free_port())
        env = {"PYTHONPATH": self.path("build")}
        args = lambda role, i: [python, script, role, opt, str(i), str(workers), port]
        return [("server", args("server", 0), env)] + [("worker", args("worker", i), env) for i in range(workers)]

    def rawtcp(self, opt, workers):
        binary, file, port = self.path("build", "rawtcp_peer"), SHAPES, str(free_port())
        args = lambda role, i: [binary, role, file, opt, str(i), port]
        return [("server", args("server", 0), {})] + [("worker", args("worker", i), {}) for i in range(workers)]


def measure(start, phases, seconds, warm, log):
    """One launch: (check, peak RSS in MB, {phase: figures})."""
    procs, server, workers = [], None, []
    try:
        specs = start()
        check = None

        def await_ready():
            nonlocal check
            line = workers[-1].get(120)
            check = check or line.get("check")

        for role, argv, env in specs:
            if role == "later":
                await_ready()
            p = Process(role, argv, log, env)
            procs.append(p)
            if role == "server":
                server = p
            elif role in ("worker", "later"):
                workers.append(p)
        late = specs[-1][0] == "later"
        for w in (workers[-1:] if late else workers):
            line = w.get(120)
            check = check or line.get("check")
        out = {}
        for phase in phases:
            for length in ([warm] if warm else []) + [seconds]:
                cpu = server.cpu()
                for w in workers:
                    w.send("GO %s %g" % (phase, length))
                lines = [w.get(length * 4 + 60) for w in workers]
                cpu = server.cpu() - cpu
            steps = sum(x["steps"] for x in lines)
            out[phase] = {"steps_per_s": sum(x["steps"] / x["seconds"] for x in lines), "steps": steps,
                          "server_cpu_s_per_step": cpu / steps,
                          "p50_us": max(x["p50_us"] for x in lines), "p99_us": max(x["p99_us"] for x in lines)}
        peak = server.peak_mb()
        for w in workers:
            w.send("EXIT")
        return check, peak, out
    finally:
        for p in reversed(procs):
            p.end(2.0 if p in workers and sys.exc_info()[0] is None else 0.0)


def iperf(args, seconds):
    port = str(free_port(1))
    server = subprocess.Popen(["iperf3", "-s", "-1", "-B", "127.0.0.1", "-p", port, "--forceflush"],
                              stdout=subprocess.PIPE, text=True)
    try:
        while "listening" not in (line := server.stdout.readline()):
            if not line:
                raise RuntimeError("iperf3 does not listen")
        done = subprocess.run(["iperf3", "-c", "127.0.0.1", "-p", port, "-t", str(seconds), "-J"] + args,
                              capture_output=True, text=True, timeout=seconds + 20)
        end = json.loads(done.stdout)["end"]
    finally:
        server.kill()
        server.wait()
    there = end["sum_received"]["bits_per_second"] / 8e9
    if "--bidir" not in args:
        return {"GBps": there}
    return {"there_GBps": there, "back_GBps": end["sum_received_bidir_reverse"]["bits_per_second"] / 8e9}


def limits(work, seconds):
    out = {"iperf3_one_stream": iperf([], seconds), "iperf3_bidirectional": iperf(["--bidir"], seconds)}
    done = subprocess.run([os.path.join(work, "build", "limits"), str(seconds / 5)], capture_output=True, text=True,
                          check=True, timeout=120)
    out["memory"] = json.loads(done.stdout)
    return out


def median(xs):
    xs = sorted(xs)
    n = len(xs)
    return xs[n // 2] if n % 2 else (xs[n // 2 - 1] + xs[n // 2]) / 2


def spread(xs, digits=2):
    f = "%%.%df" % digits
    return (f + " (" + f + " to " + f + ")") % (median(xs), min(xs), max(xs))


def group(runs):
    by = {}
    for r in runs:
        by.setdefault((r["system"], r["opt"], r["workers"], r["phase"]), []).append(r)
    return by


def table(results):
    by, names = group(results["runs"]), results["systems"]
    pick = lambda rs, key: [r[key] for r in rs]
    out = ["| system | optimizer | workers | steps/s: median (min to max) | GB/s | server CPU s/step | server peak RSS MB "
           "| step ms p50 / p99 | values |", "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for workers in (1, 2):
        for opt in OPTS:
            for name in names:
                rs = by.get((name, opt, workers, "pushpull"))
                if rs:
                    out.append("| %s | %s | %d | %s | %.2f | %.3f | %.0f | %.0f / %.0f | %s |" % (
                        name, opt, workers, spread(pick(rs, "steps_per_s")),
                        median(pick(rs, "steps_per_s")) * 2 * STEP_GB, median(pick(rs, "server_cpu_s_per_step")),
                        max(pick(rs, "peak_mb")), median(pick(rs, "p50_us")) / 1e3, median(pick(rs, "p99_us")) / 1e3,
                        "/".join(sorted({str(x) for x in pick(rs, "check")}))))
    out += ["", "One direction alone (sgd, 1 worker), GB/s of payload: median (min to max); server CPU s per step.", "",
            "| system | push | CPU | pull | CPU |", "| --- | --- | --- | --- | --- |"]
    for name in names:
        cells = []
        for phase in ("push", "pull"):
            rs = by.get((name, "sgd", 1, phase))
            cells += [spread([x * STEP_GB for x in pick(rs, "steps_per_s")]),
                      "%.3f" % median(pick(rs, "server_cpu_s_per_step"))] if rs else ["", ""]
        if any(cells):
            out.append("| %s | %s |" % (name, " | ".join(cells)))
    out += ["", "One tensor of 1 KiB, push and pull, one at a time (sgd, 1 worker).", "",
            "| system | round trips/s | p50 us | p99 us | server CPU us per round trip |", "| --- | --- | --- | --- | --- |"]
    for name in names:
        rs = by.get((name, "sgd", 1, "small"))
        if rs:
            out.append("| %s | %s | %s | %s | %.0f |" % (
                name, spread(pick(rs, "steps_per_s"), 0), spread(pick(rs, "p50_us"), 0), spread(pick(rs, "p99_us"), 0),
                1e6 * median(pick(rs, "server_cpu_s_per_step"))))
    flat = {}
    for one in results["limits"]:
        for a, d in one.items():
            for b, v in d.items():
                flat.setdefault(a + " " + b, []).append(v)
    out += ["", "| limit | median (min to max) |", "| --- | --- |"]
    out += ["| %s | %s |" % (k, spread(v)) for k, v in flat.items()]
    return "\n".join(out) + "\n"


def versions(work, build, names):
    def said(*argv):
        try:
            return subprocess.run(argv, capture_output=True, text=True, timeout=90).stdout.strip().split("\n")[-1]
        except (OSError, subprocess.TimeoutExpired):
            return None
    pip = "import importlib.metadata as m; print(' '.join(p + ' ' + m.version(p) for p in %r))"
    of = {"mxnet": [work + "/mx/bin/python", "-c", pip % (["mxnet", "numpy"],)],
          "tensorflow": [work + "/tf/bin/python", "-c", pip % (["tensorflow-cpu", "numpy"],)],
          "torch": ["/usr/bin/python3", "-c", "import torch; print(torch.__version__)"],
          "espalier": [build + "/server/espalierd", "--version"],
          "stockgrpc": [work + "/grpc/bin/python", "-c", pip % (["grpcio", "protobuf", "numpy"],)]}
    with open("/proc/sys/net/ipv4/tcp_congestion_control") as f:
        control = f.read().strip()
    return {**{name: said(*of[name]) for name in names if name in of},
            "gcc": said("gcc", "-dumpfullversion"), "kernel": platform.release(), "cpus": os.cpu_count(),
            "congestion_control": control, "python": platform.python_version()}


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("--work", required=True, help="folder that run.sh has prepared")
    a.add_argument("--out", required=True, help="folder for results.json, table.md and the log")
    a.add_argument("--systems", default="all", help="of " + ",".join(SYSTEMS))
    a.add_argument("--espalier", default=os.path.join(HERE, "..", "..", "..", "build", "release"),
                   help="Espalier's build folder; the default is the release preset's")
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--seconds", type=float, default=5, help="of each measurement")
    a.add_argument("--warm", type=float, default=1, help="seconds of warm-up before each")
    a.add_argument("--workers", default="1,2")
    a.add_argument("--opts", default="sgd,momentum,adam", help="for one worker")
    a.add_argument("--opts-many", default="sgd,momentum,adam", help="for several workers")
    a.add_argument("--phases", default="push,pull,small", help="besides pushpull: for sgd and one worker")
    a.add_argument("--minutes", type=float, default=60, help="no further measurement is begun after this")
    a.add_argument("--no-limits", action="store_true")
    o = a.parse_args()
    os.makedirs(o.out, exist_ok=True)
    names, systems = o.systems.split(","), Systems(os.path.abspath(o.work), os.path.abspath(o.espalier))
    names = SYSTEMS if names == ["all"] else names
    deadline = time.monotonic() + o.minutes * 60
    results = {"date": datetime.datetime.utcnow().strftime("%Y-%m-%d %H:%M UTC"), "seconds": o.seconds,
               "systems": names, "versions": versions(systems.work, systems.build, names), "runs": [], "limits": [], "failures": []}
    configs = []
    for workers in map(int, o.workers.split(",")):
        for opt in (o.opts if workers == 1 else o.opts_many).split(","):
            phases = ["pushpull"] + (o.phases.split(",") if workers == 1 and opt == "sgd" and o.phases else [])
            configs.append((opt, workers, phases))
    with open(os.path.join(o.out, "log.txt"), "a") as log:
        for r in range(o.rounds):
            if time.monotonic() > deadline:
                break
            if not o.no_limits:
                try:
                    results["limits"].append(limits(systems.work, max(2, o.seconds)))
                except Exception as e:      # a limit that cannot be measured must not cost the run
                    results["failures"].append({"round": r, "system": "limits", "error": repr(e)})
            for opt, workers, phases in configs:
                for i in range(len(names)):
                    name = names[(i + r) % len(names)]
                    if time.monotonic() > deadline:
                        continue
                    try:
                        check, peak, out = measure(lambda: getattr(systems, name)(opt, workers), phases, o.seconds,
                                                   o.warm, log)
                        for phase, figures in out.items():
                            results["runs"].append({"round": r, "system": name, "opt": opt, "workers": workers,
                                                    "phase": phase, "check": check, "peak_mb": peak, **figures})
                            print("round %d %-12s %-8s %dw %-8s %9.2f steps/s  cpu %.4f  peak %.0f MB  %s" % (
                                r, name, opt, workers, phase, figures["steps_per_s"],
                                figures["server_cpu_s_per_step"], peak, check), flush=True)
                    except Exception as e:  # one system's failure is a result
                        results["failures"].append({"round": r, "system": name, "opt": opt, "workers": workers,
                                                    "error": repr(e)})
                        print("round %d %s %s %dw FAILED: %r" % (r, name, opt, workers, e), flush=True)
                    with open(os.path.join(o.out, "results.json"), "w") as f:
                        json.dump(results, f, indent=1)
                    with open(os.path.join(o.out, "table.md"), "w") as f:
                        f.write(table(results))
    print(table(results))
    sys.exit(1 if results["failures"] or any(r["check"] != "ok" for r in results["runs"]) else 0)


if __name__ == "__main__":
    main()
