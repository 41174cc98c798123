"""Runs the tessera binary: one-shot commands, and a daemon on free loopback ports that is always ended."""

import json
import os
import pathlib
import signal
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
START_SECONDS = 60


def binary():
    return os.environ.get("TESSERA_BINARY") or str(ROOT / "build" / "release" / "tessera")


def command(*arguments, check=True, timeout=600, **options):
    """Runs `tessera ARGUMENTS`; a failure shows what the program said."""
    done = subprocess.run([binary(), *map(str, arguments)], capture_output=True, text=True, timeout=timeout,
                          check=False, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"tessera {' '.join(map(str, arguments))}: exit {done.returncode}\n"
                             f"{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done


def import_model(zoo, path, name, **options):
    return command("zoo", "--zoo", zoo, "import", path, "--name", name, **options)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def http_get(url, timeout=10):
    """(status, body) of a GET; an error status is a result, too."""
    try:
        with _OPENER.open(url, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def config_text(settings):
    """Settings as a config file: JSON, which the daemon reads as well as YAML."""
    return json.dumps(settings, indent=2)


def merged(base, extra):
    """Nested settings, the second over the first."""
    result = dict(base)
    for key, value in extra.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and key in result else value
    return result


class Daemon:
    """A running `tessera serve`. Use as a context manager, or call stop()."""

    def __init__(self, zoo, folder, settings=None, arguments=()):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sockets = tempfile.mkdtemp(prefix="tessera-")  # a Unix socket's path must be short
        self.grpc, self.http, self.scrape = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self.admin = f"unix:{self.sockets}/admin.sock"
        self.config = self.folder / "tessera.json"
        self.log = self.folder / "daemon.log"
        self.write_config(settings or {})
        self.out = open(self.log, "ab")
        self.process = subprocess.Popen(
            [binary(), "serve", "--zoo", str(zoo), "--listen", self.grpc, "--http", self.http, "--config",
             str(self.config), *arguments], stdout=self.out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        self.wait_ready()

    def write_config(self, settings):
        base = {"engine": {"memory": "512MiB"},
                "listen": {"metrics": {"address": self.scrape}, "admin": {"address": self.admin}}}
        self.config.write_text(config_text(merged(base, settings)), encoding="utf-8")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def log_text(self):
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_ready(self):
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log_text()[-4000:]}")
            try:
                if self.health() == 200:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"not ready after {START_SECONDS} s:\n{self.log_text()[-4000:]}")

    def health(self):
        return http_get(f"http://{self.http}/health", timeout=2)[0]

    def metrics(self):
        """{"name{labels}": value} of everything at /metrics."""
        status, body = http_get(f"http://{self.scrape}/metrics")
        assert status == 200, body
        values = {}
        for line in body.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
        return values

    def metric(self, name):
        """The sum over all series of one metric."""
        prefix = "tessera_" + name
        return sum(v for k, v in self.metrics().items() if k == prefix or k.startswith(prefix + "{"))

    def resident_bytes(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.close()

    def close(self):
        self.out.close()
        shutil.rmtree(self.sockets, ignore_errors=True)

    def stop(self, timeout=60):
        """Ends it by SIGTERM; returns the exit status, and fails if it had to be killed."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"did not end within {timeout} s:\n{self.log_text()[-4000:]}") from None
        self.close()
        return self.process.returncode
