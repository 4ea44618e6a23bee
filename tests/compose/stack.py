"""The containers of the compose tests: building the images, a stack of deploy/compose.yaml with what the tests add, and
the pushers in it.

Each stack is a Compose project of its own, and goes when its block is left, interrupted too. Only containers of its
network reach it: espctl runs in them, and what pushers log is read with `docker logs`.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import threading

import load
from load import harness

FOLDER = os.path.dirname(os.path.abspath(__file__))
DEPLOYED = os.path.join(harness.ROOT, "deploy", "compose.yaml")
ADDED = os.path.join(FOLDER, "compose.yaml")
PROXIES = "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"
PORT = 7433
BUILD_TIMEOUT = 3 * load.LONG
DEADLINE_MS = 8 * 60 * 1000  # of a pusher's calls, where the test is not about it


def run(command, stdin=None, timeout=load.LONG, **rest):
    """Its standard output; what fails raises with what it wrote."""
    done = subprocess.run(
        command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout, **rest
    )
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def docker(*arguments, **rest):
    return run(["docker", *arguments], **rest)


def answers(*command):
    return shutil.which(command[0]) and subprocess.run(command, capture_output=True, check=False).returncode == 0


def compose_command():
    """Compose as a plugin of Docker, else version 1; None without either."""
    if answers("docker", "compose", "version"):
        return ["docker", "compose"]
    return ["docker-compose"] if answers("docker-compose", "version") else None


def what_is_missing():
    """Why the tests can't run here; None where they can."""
    if not answers("docker", "info"):
        return "there is no Docker, or its daemon does not answer (deploy/deps.sh docker installs it)"
    if compose_command() is None:
        return "there is no Docker Compose (deploy/deps.sh docker installs it)"
    return None


def build(name, *flags):
    """Builds an image of the Dockerfile, and returns its id: its name may be another run's meanwhile."""
    for variable in PROXIES:
        if variable in os.environ:
            flags += ("--build-arg", variable)
    print(f"building {name}", flush=True)
    return docker("build", "--quiet", "--force-rm", "--tag", name, *flags, harness.ROOT, timeout=BUILD_TIMEOUT).strip()


class Images:
    """What the stacks run. The names keep the images for the next run; the ids are used."""

    def __init__(self):
        run([os.path.join(harness.ROOT, "deploy", "base-image.sh")], timeout=BUILD_TIMEOUT)
        self.plain = build("espalier-test:plain")
        self.test = build("espalier-test:pusher", "--target", "test")


class Container:
    def __init__(self, name):
        self.name = name

    def inspect(self, template):
        return docker("inspect", "--format", template, self.name).strip()

    def run(self, *command, **rest):
        return docker("exec", self.name, *command, **rest)

    def pause(self):
        """Tries again where the kernel could not stop all of its threads at once, as on a busy machine."""
        harness.eventually(lambda: answers("docker", "pause", self.name), f"{self.name} is paused")

    def unpause(self):
        docker("unpause", self.name)

    def espctl(self, *command):
        return json.loads(self.run("espctl", *command, "--json"))

    def digests(self):
        """The digest of each leaf by its path, and the commit at which they are."""
        described = self.espctl("digest")
        return {leaf["path"]: leaf["digest"] for leaf in described["leaves"]}, described["commit"]


class Pusher(Container):
    """A container with a pusher, and what it has logged so far."""

    def __init__(self, name, seed):
        super().__init__(name)
        self.seed = seed
        self.lines = []
        self.follower = subprocess.Popen(
            ["docker", "logs", "--follow", name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.follower.stdout:
            self.lines.append(line)

    def log(self):
        return [load.parse(line) for line in list(self.lines)]

    def pushes(self):
        return [entry for entry in self.log() if isinstance(entry, load.Push)]

    def wait_for_pushes(self, count):
        """Waits until it has logged so many pushes."""
        harness.eventually(
            lambda: len(self.lines) >= count or not self.reader.is_alive(), f"{count} pushes", load.LONG
        )
        if len(self.pushes()) < count:
            raise AssertionError(f"{self.name} ended after {len(self.pushes())} pushes")

    def wait(self):
        """Waits for its end, and returns its exit code; after that its log is complete."""
        code = int(docker("wait", self.name))
        self.reader.join(harness.TIMEOUT)
        self.follower.wait(harness.TIMEOUT)
        self.follower.stdout.close()
        return code

    def stderr(self):
        command = ["docker", "logs", self.name]
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True).stderr

    def stop(self):
        """Ends it after the push that is under way."""
        docker("kill", "--signal", "TERM", self.name)
        code = self.wait()
        if code != 0:
            raise AssertionError(f"{self.name} ended with {code}")


class Stack:
    """A Compose project. Where its block ends with an exception, what its containers logged is printed."""

    numbers = itertools.count(1)

    def __init__(self, images, added=True, lease="1h"):
        self.project = f"espalier-test-{os.getpid()}-{next(self.numbers)}"
        self.images = images
        files = [DEPLOYED, ADDED] if added else [DEPLOYED]
        self.command = [*compose_command(), "-p", self.project, *(f"--file={file}" for file in files)]
        self.environment = dict(
            os.environ, ESPALIER_IMAGE=images.plain, ESPALIER_TEST_IMAGE=images.test, LEASE=lease
        )
        self.network = f"{self.project}_training"
        self.label = f"com.docker.compose.project={self.project}"

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        before = [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)]
        if kind is not None and issubclass(kind, Exception):
            self.print_logs()
        self.remove()
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)

    def containers(self):
        return docker("ps", "--all", "--quiet", "--filter", f"label={self.label}").split()

    def print_logs(self):
        for container in self.containers():
            title = Container(container).inspect("{{.Name}} {{.Config.Cmd}}: {{.State.Status}}, {{.State.ExitCode}}")
            print(f"\n{title}", flush=True)
            subprocess.run(["docker", "logs", "--tail", "25", container], stderr=subprocess.STDOUT, check=False)

    def remove(self):
        containers = self.containers()
        if containers:
            docker("rm", "--force", "--volumes", *containers)
        networks = docker("network", "ls", "--quiet", "--filter", f"label={self.label}").split()
        if networks:
            docker("network", "rm", *networks)

    def compose(self, *arguments):
        return run([*self.command, *arguments], env=self.environment)

    def up(self, *services):
        self.compose("up", "-d", "--no-build", *services)

    def service(self, name):
        return Container(self.compose("ps", "--quiet", name).strip())

    def start_server(self, name="server"):
        """A server that answers."""
        self.up(name)
        server = self.service(name)
        server.run("espctl", "ping", "--timeout", f"{harness.TIMEOUT:.0f}s")
        return server

    def operate(self, *command):
        """espctl in a container of its own: the operator's."""
        return json.loads(self.compose("run", "--rm", "-T", "operator", *command, "--json"))

    def pusher(self, seed, *flags):
        """Starts a worker that pushes until it is stopped."""
        name = f"{self.project}-pusher-{seed}"
        flags = [f"--seed={seed}", f"--deadline-ms={DEADLINE_MS}", *flags]
        self.compose("run", "-d", "--no-deps", "--name", name, "pusher", "--server=server:7433", *flags)
        return Pusher(name, seed)

    def unread(self, server):
        """Of each connection, and of none, the bytes that have come to the server, which may be paused, and wait."""
        tables = self.once(f"--network=container:{server.name}", command=["cat", "/proc/net/tcp", "/proc/net/tcp6"])
        rows = [line.split() for line in tables.splitlines()]
        established = [row for row in rows if row[1].endswith(f":{PORT:04X}") and row[3] == "01"]
        return [0, *(int(row[4].split(":")[1], 16) for row in established)]

    def cut(self, container):
        docker("network", "disconnect", self.network, container.name)

    def heal(self, container, alias):
        """Connects it again, to another address: the one that it had is another container's now."""
        docker("run", "-d", f"--label={self.label}", f"--network={self.network}", self.images.test, "sleep", "infinity")
        docker("network", "connect", f"--alias={alias}", self.network, container.name)

    def once(self, *options, command, stdin=None):
        """The output of a command in a container of the test image."""
        return docker("run", "--rm", "-i", f"--label={self.label}", *options, self.images.test, *command, stdin=stdin)
