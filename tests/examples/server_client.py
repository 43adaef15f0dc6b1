# SPDX-License-Identifier: Apache-2.0
"""Starts a server for a test, and speaks to it: properly, or byte by byte."""
import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import threading
import time


LABEL = r'[a-z]+="(?:[^"\\]|\\.)*"'  # of a metric


class Server:
    """A running server; its port is what it printed."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.search(r" is served at http://[^ ]*:(\d+)/$", line.strip())
        if not found:
            raise AssertionError(f"no address in {line!r}: {self.process.communicate(timeout=30)[1]}")
        self.port = int(found.group(1))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, seconds=30):
        """Status and standard error of the finished program."""
        problem = self.process.communicate(timeout=seconds)[1]
        return self.process.returncode, problem

    def connect(self, seconds=30):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)

    def ask(self, method, path, body=None, headers=None, connection=None):
        """(status, headers, body); JSON bodies both ways are objects."""
        own = connection or self.connect()
        try:
            headers = dict(headers or {})
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
                headers.setdefault("Content-Type", "application/json")
            own.request(method, path, body, headers)
            answer = own.getresponse()
            content = answer.read()
            if content and answer.headers.get("Content-Type") == "application/json":
                content = json.loads(content)
            return answer.status, answer.headers, content
        finally:
            if connection is None:
                own.close()

    def complete(self, **fields):
        """The object that answers a completion, which must succeed."""
        status, _, answer = self.ask("POST", "/v1/completions", fields)
        if status != 200:
            raise AssertionError(f"{fields}: {status} {answer}")
        return answer

    @contextlib.contextmanager
    def stream(self, path="/v1/completions", **fields):
        """The open connection of a stream and its events as they come."""
        connection = self.connect()
        try:
            connection.request("POST", path, json.dumps({**fields, "stream": True}),
                               {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise AssertionError(f"{fields}: {answer.status} {answer.read()}")
            if answer.headers["Content-Type"] != "text/event-stream":
                raise AssertionError(answer.headers["Content-Type"])
            yield connection, events(answer)
        finally:
            connection.close()

    def streamed(self, path="/v1/completions", **fields):
        """All events of a stream."""
        with self.stream(path, **fields) as (_, incoming):
            return list(incoming)

    def raw(self, content, seconds=10, half_close=False):
        """Everything that comes back for these bytes, until the server closes or is silent for so long."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as link:
            received = b""
            with contextlib.suppress(OSError):  # refused before all was sent: the answer says why
                link.sendall(content)
                if half_close:
                    link.shutdown(socket.SHUT_WR)
            with contextlib.suppress(TimeoutError, ConnectionError):
                while piece := link.recv(65536):
                    received += piece
            return received

    def metrics(self):
        """Values by name with labels, as Prometheus reads them; none where the server turns a connection away."""
        status, headers, content = self.ask("GET", "/metrics")
        if status == 429:
            return {}
        assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
        values = {}
        for line in content.decode().splitlines():
            if line.startswith("#"):
                continue
            found = re.fullmatch(r"([a-z_]+(?:\{%s(?:,%s)*\})?) (\S+)" % (LABEL, LABEL), line)
            assert found, line
            values[found.group(1)] = float(found.group(2))
        return values

    def until(self, name, value, seconds=10):
        """Waits until a metric has a value."""
        end = time.monotonic() + seconds
        while (seen := self.metrics().get(name)) != value:
            if time.monotonic() > end:
                raise AssertionError(f"{name} is {seen}, not {value}")
            time.sleep(0.02)


def events(answer):
    """The data of server-sent events: objects, and "[DONE]"."""
    for line in answer:
        line = line.rstrip(b"\n")
        if line:
            assert line.startswith(b"data: "), line
            data = line[6:].decode()
            yield data if data == "[DONE]" else json.loads(data)


def request(method, path, body=b"", *headers):
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def status_of(received):
    """The status of the first answer in what was received; None where there is none."""
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", received)
    return int(found.group(1)) if found else None


def at_once(jobs):
    """Runs all jobs at the same time; their results in order. The first error of any of them is raised."""
    results, problems = [None] * len(jobs), []

    def run(i):
        try:
            results[i] = jobs[i]()
        except Exception as problem:  # pylint: disable=broad-except
            problems.append(problem)
    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return results
