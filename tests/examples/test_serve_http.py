#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The server's limits: whatever a client sends, or fails to send, others are served and nothing is left behind."""
import contextlib
import json
import os
import random
import re
import signal
import socket
import threading
import time
import unittest
from unittest import mock

from scripted_server import PROGRAM, main, scripted
from server_client import Server, at_once, events, request, status_of

TEXT = "/v1/completions"
JSON = "Content-Type: application/json"
REQUESTS = int(os.environ.get("MOR_TEST_REQUESTS", "2000"))  # mutilated ones
LONG = {"prompt": "abc", "max_tokens": 4000}  # ends only if it is made to
RUNNING, QUEUED, INSIDE = "mor_engine_running", "mor_engine_queued", "mor_generations_inside"


def body(**fields):
    return json.dumps(fields).encode()


class Protocol(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = scripted("--read-seconds", 2, "--keep-alive-seconds", 3, "--max-body-bytes", 4000)

    @classmethod
    def tearDownClass(cls):
        with cls.server:
            cls.server.stop()
            assert cls.server.wait() == (0, "")

    def refuse(self, status, content, closes=True):
        start = time.monotonic()
        received = self.server.raw(content)
        allowed = status if isinstance(status, tuple) else (status,)
        self.assertIn(status_of(received), allowed, (content[:200], received[:300]))
        head, _, rest = received.partition(b"\r\n\r\n")
        self.assertIn(b"Content-Type: application/json", head)
        self.assertEqual(set(json.loads(rest)["error"]), {"message", "type", "param", "code"})
        if closes:
            self.assertIn(b"Connection: close", head)
            self.assertLess(time.monotonic() - start, 5)
        return head

    def test_addresses_and_methods(self):
        status, _, answer = self.server.ask("GET", "/nowhere")
        self.assertEqual((status, answer["error"]["code"]), (404, "not_found"))
        for method, path, allowed in (("GET", TEXT, "POST"), ("PUT", TEXT, "POST"), ("DELETE", TEXT, "POST"),
                                      ("OPTIONS", TEXT, "POST"), ("POST", "/health", "GET"), ("PATCH", "/", "GET"),
                                      ("TRACE", "/metrics", "GET"), ("POST", "/v1/models", "GET")):
            status, headers, _ = self.server.ask(method, path)
            self.assertEqual((status, headers["Allow"]), (405, allowed), (method, path))
        for path in ("/v1/completions/", "//", "/../etc/passwd", "/%2e%2e/x", "/health%00", "/v1", "/page.jsx",
                     "/pageXjs"):
            self.assertEqual(self.server.ask("GET", path)[0], 404, path)
        status, headers, content = self.server.ask("HEAD", "/health")
        self.assertEqual((status, headers["Content-Length"], content), (200, "16", b""))
        self.assertEqual(self.server.ask("GET", "/health?verbose=1&x=%zz")[0], 200)

    def test_whole_addresses(self):
        for address, status in (("http://127.0.0.1/health", 200), ("HTTP://x:80/health?y=http://z", 200),
                                ("https://x/health", 200), ("http://x", 200), ("http://x/", 200), ("http://x?y", 200),
                                ("http://x/nowhere", 404), ("http:/health", 404), ("x://y/health", 404),
                                ("/http://x/health", 404), ("http://x/http://x/health", 404)):
            self.assertEqual(status_of(self.server.raw(request("GET", address, b"", "Connection: close"))), status, address)
        received = self.server.raw(request("POST", "http://x" + TEXT, body(prompt="a"), JSON, "Connection: close"))
        self.assertEqual(status_of(received), 200)

    def test_content_types(self):
        for kind in (None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
                     "application/jsonp", "application/json2; charset=utf-8"):
            headers = [f"Content-Type: {kind}"] if kind else []
            self.refuse(415, request("POST", TEXT, body(prompt="a"), *headers))
        self.refuse(415, request("POST", TEXT, body(prompt="a"), JSON, "Content-Encoding: gzip"))
        for kind in ("application/json", "application/json; charset=utf-8", "APPLICATION/JSON ;x=y"):
            answer = self.server.ask("POST", TEXT, body(prompt="a"), {"Content-Type": kind})
            self.assertEqual(answer[0], 200, kind)

    def test_bodies_are_bounded(self):
        exact = body(prompt="a", user="x").ljust(4000)
        self.assertEqual(status_of(self.server.raw(request("POST", TEXT, exact, JSON, "Connection: close"))), 200)
        self.refuse(413, request("POST", TEXT, exact + b" ", JSON))
        for length in ("4001", "1000000000000", "99999999999999999999999999"):
            self.refuse(413, f"POST {TEXT} HTTP/1.1\r\n{JSON}\r\nContent-Length: {length}\r\n\r\n".encode())
        self.refuse(413, request("POST", TEXT, b"x" * 20000000, JSON))
        head = self.refuse(413, f"POST {TEXT} HTTP/1.1\r\n{JSON}\r\nExpect: 100-continue\r\n"
                                "Content-Length: 5000\r\n\r\n".encode())
        self.assertNotIn(b"100 Continue", head)
        received = self.server.raw(request("POST", TEXT, body(prompt="a"), JSON, "Expect: 100-continue",
                                           "Connection: close"))
        self.assertTrue(received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), received[:100])

    def test_what_a_body_is_must_be_beyond_doubt(self):
        for lines in ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5",
                      "Transfer-Encoding: gzip", "transfer-encoding:identity", "Content-Length: ", "X: y"):
            # Newer versions of cpp-httplib know by themselves that two lengths are one too many.
            self.refuse((411, 400), f"POST {TEXT} HTTP/1.1\r\n{JSON}\r\n{lines}\r\n\r\n"
                                    "5\r\nabcde\r\n0\r\n\r\n".encode())
        for lines in ("Content-Length: 5\r\nContent-Length: 6", "Content-Length: 5\r\nContent-Length: 5",
                      "Content-Length: -1", "Content-Length: +5", "Content-Length: 5x", "Content-Length: 0x5",
                      "Content-Length: 5, 5"):
            self.refuse(400, f"POST {TEXT} HTTP/1.1\r\n{JSON}\r\n{lines}\r\n\r\nabcdeabcde".encode())
        hidden = b"GET /v1/models HTTP/1.1\r\n\r\n"
        received = self.server.raw(request("GET", "/health", hidden))
        self.assertEqual(received.count(b"HTTP/1.1 "), 1, received)  # the body of a GET is no second request

    def test_headers_are_bounded(self):
        self.refuse(431, b"GET /health HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n")
        self.refuse((431, 400), b"GET /health HTTP/1.1\r\n" + b"A: b\r\n" * 3000 + b"\r\n")
        self.refuse(431, b"GET /health HTTP/1.1\r\nX: " + b"x" * 3000000)
        self.refuse(431, b"G" * 100000)
        self.assertEqual(status_of(self.server.raw(request("GET", "/health", b"", "X: " + "x" * 7000))), 200)

    def test_malformed_requests(self):
        for content in (b"\r\n\r\n", b"hello\r\n\r\n", b"GET\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
                        b"get / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1 x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
                        b"GET / HTTP/1.1\0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            received = self.server.raw(content, half_close=True)
            self.assertIn(status_of(received), (400, 404, 405, 415, None), (content, received))
        for ranges in ("bytes=0-4", "bytes=" + "0-," * 500 + "0-", "bytes=5-1", "bytes=99999999999999999999-"):
            received = self.server.raw(request("GET", "/page.js", b"", f"Range: {ranges}", "Connection: close"))
            self.assertIn(status_of(received), (200, 416), ranges)
            self.assertLess(len(received), 20000)

    def test_slow_clients_are_told_and_cut(self):
        def send(begun):
            start = time.monotonic()
            with socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as link:
                link.sendall(begun)
                for _ in range(3):  # a byte now and then does not help
                    time.sleep(0.4)
                    link.sendall(b"x")
                return link.recv(65536), time.monotonic() - start

        begun = (b"G", b"GET /health HTTP/1.1\r\nHost: x", b"GET /health HTTP/1.1\r\n",
                 request("POST", TEXT, b"", JSON).replace(b"Content-Length: 0", b"Content-Length: 50") + b'{"pro')
        for content, (received, seconds) in zip(begun, at_once([lambda b=b: send(b) for b in begun])):
            self.assertEqual(status_of(received), 408, (content, received))
            self.assertLess(seconds, 5)

    def test_idle_connections_end(self):
        start = time.monotonic()
        self.assertEqual(self.server.raw(b""), b"")
        self.assertLess(time.monotonic() - start, 6)

    def test_connections_are_used_again(self):
        connection = self.server.connect()
        for i in range(50):
            fields = {"prompt": "a", "max_tokens": 2} if i % 5 else {"prompt": 1}
            self.assertEqual(self.server.ask("POST", TEXT, fields, connection=connection)[0], 200 if i % 5 else 400)
        connection.request("POST", TEXT, body(prompt="a", stream=True), {"Content-Type": "application/json"})
        self.assertEqual(list(events(connection.getresponse()))[-1], "[DONE]")
        local = connection.sock.getsockname()
        self.assertEqual(self.server.ask("GET", "/health", connection=connection)[0], 200)
        self.assertEqual(connection.sock.getsockname(), local)
        connection.close()
        pipelined = (request("GET", "/health") + request("POST", TEXT, body(prompt="a", max_tokens=1), JSON)) * 3
        received = self.server.raw(pipelined + request("GET", "/nowhere", b"", "Connection: close"))
        self.assertEqual(re.findall(rb"HTTP/1\.1 (\d+)", received), [b"200"] * 6 + [b"404"])

    def test_connections_end_where_the_client_asks(self):
        for asked in ("close", "Close", "TE, close", "CLOSE ,TE", "te,,close"):
            start = time.monotonic()
            for content in (request("GET", "/health", b"", f"Connection: {asked}"),
                            request("POST", TEXT, body(prompt="ab", max_tokens=3), JSON, f"Connection: {asked}")):
                received = self.server.raw(content + request("GET", "/health"))
                self.assertEqual((received.count(b"HTTP/1.1 200"), received.count(b"Connection: close\r\n")), (1, 1))
            self.assertLess(time.monotonic() - start, 1.5, asked)
        received = self.server.raw(request("GET", "/health", b"", "Connection: closed") * 2)
        self.assertEqual(received.count(b"HTTP/1.1 200"), 2)

    def test_a_stream_for_http_1_0_ends_with_the_connection(self):
        content = body(prompt="ab", max_tokens=3, stream=True)
        received = self.server.raw(request("POST", TEXT, content, JSON).replace(b"HTTP/1.1", b"HTTP/1.0"))
        head, _, rest = received.partition(b"\r\n\r\n")
        self.assertNotIn(b"chunked", head)
        self.assertTrue(rest.startswith(b"data: {") and rest.endswith(b"data: [DONE]\n\n"), rest)

    def test_mutilated_requests_harm_nobody(self):
        chance = random.Random(3)
        good = [request("GET", "/health", b"", "Connection: close"), request("GET", "/", b"", "Range: bytes=1-2"),
                request("POST", TEXT, body(prompt="ab", max_tokens=3), JSON),
                request("POST", TEXT, body(prompt="ab", max_tokens=3, stream=True), JSON, "Expect: 100-continue"),
                request("POST", "/v1/chat/completions", body(messages=[{"role": "user", "content": "x"}]), JSON)]
        pieces = [b"\r\n", b"\n", b"\0", b":", b" ", b"HTTP/1.1", b"Content-Length: 3\r\n", b"\xff" * 20, b"%",
                  b"\r\n\r\n",
                  b"Transfer-Encoding: chunked\r\n", b"Connection: keep-alive\r\n", b'"', b"{", b"-1", b"0" * 30]

        def some_request():
            content = bytearray(chance.choice(good))
            for _ in range(chance.randint(1, 4)):
                at, kind = chance.randrange(len(content) + 1), chance.randrange(4)
                if kind == 0:
                    content[at:at] = chance.choice(pieces)
                elif kind == 1:
                    del content[at:at + chance.randint(1, 20)]
                elif kind == 2 and at < len(content):
                    content[at] = chance.randrange(256)
                else:
                    content[at:at] = content[at // 2:at]
            return bytes(content)

        def send(batch):
            return [(content, self.server.raw(content, half_close=True)) for content in batch]

        for batch in at_once([lambda b=[some_request() for _ in range(REQUESTS // 8)]: send(b) for _ in range(8)]):
            for content, received in batch:
                for status in re.findall(rb"HTTP/1\.1 (\d)\d\d ", received):
                    self.assertIn(status, b"124", (content, received))
                if received:
                    self.assertIsNotNone(status_of(received), (content, received))
        self.server.until(INSIDE, 0)
        self.assertEqual(self.server.ask("GET", "/health")[0], 200)


class Load(unittest.TestCase):
    """Each test has a server of its own, with the limits it is about."""

    def serve(self, *arguments):
        server = scripted(*arguments)
        self.addCleanup(server.__exit__)
        return server

    def end(self, server):
        """Nothing is left in a server, and it ends well."""
        server.until(INSIDE, 0)
        server.until(RUNNING, 0)
        server.until(QUEUED, 0)
        server.stop()
        self.assertEqual(server.wait(), (0, ""))

    def test_many_at_once_get_their_own_answers(self):
        server = self.serve("--max-slots", 8, "--queue", 200, "--tick-milliseconds", 1)

        def one(i):
            prompt = f"{i},"
            if i % 3 == 0:
                parts = server.streamed(prompt=prompt, max_tokens=30)[:-1]
                return "".join(part["choices"][0]["text"] for part in parts)
            return server.complete(prompt=prompt, max_tokens=30)["choices"][0]["text"]

        for i, text in enumerate(at_once([lambda i=i: one(i) for i in range(100)])):
            self.assertEqual(text, (f"{i}," * 30)[:30])
        self.end(server)

    def test_a_full_queue_says_try_again(self):
        server = self.serve("--max-slots", 1, "--queue", 1, "--tick-milliseconds", 10)
        with server.stream(**LONG) as (_, first), server.stream(**LONG):
            next(first)
            server.until(QUEUED, 1)
            for fields in ({"prompt": "a"}, {"prompt": "a", "stream": True}):
                status, headers, answer = server.ask("POST", TEXT, fields)
                self.assertEqual((status, headers["Retry-After"]), (429, "1"))
                self.assertEqual(answer["error"]["code"], "rate_limit_exceeded")
            self.assertEqual(server.ask("GET", "/health")[0], 200)
        server.until(INSIDE, 0)
        server.complete(prompt="a")
        self.end(server)

    def test_clients_that_go_away_free_their_place(self):
        server = self.serve("--max-slots", 2, "--queue", 4, "--tick-milliseconds", 10)
        for stream in (True, False):
            links = []
            for _ in range(4):  # two of them run, two wait
                links.append(socket.create_connection(("127.0.0.1", server.port)))
                links[-1].sendall(request("POST", TEXT, body(**LONG, stream=stream), JSON))
            server.until(RUNNING, 2)
            server.until(QUEUED, 2)
            for link in links:
                link.close()
            server.until(INSIDE, 0)
            server.until(RUNNING, 0)
        self.assertEqual(server.metrics()['mor_generations_total{outcome="cancelled"}'], 8)
        self.end(server)

    def test_clients_that_only_send_nothing_more_are_answered(self):
        server = self.serve("--max-slots", 1, "--tick-milliseconds", 10)
        content = request("POST", TEXT, body(prompt="abc", max_tokens=30), JSON)
        with server.stream(prompt="abc", max_tokens=40) as (_, first):
            next(first)  # keeps the others waiting
            received = server.raw(content * 2, half_close=True)
        self.assertEqual(set(re.findall(rb"HTTP/1\.1 (.*)\r\n", received)), {b"100 Continue", b"200 OK"})
        self.assertEqual((received.count(b"200 OK"), received.count(b'"text":"' + b"abc" * 10)), (2, 2), received)
        for version in (b"HTTP/1.1", b"HTTP/1.0"):
            content = request("POST", TEXT, body(prompt="abc", max_tokens=30, stream=True), JSON)
            received = server.raw(content.replace(b"HTTP/1.1", version), half_close=True)
            self.assertEqual(received.count(b"\n:\n\n"), 1, received)
            self.assertEqual((received.count(b"data: {"), received.count(b"data: [DONE]\n\n")), (31, 1), received)
        # HTTP/1.0 has nothing to send before the answer.
        content = request("POST", TEXT, body(**LONG), JSON).replace(b"HTTP/1.1", b"HTTP/1.0")
        self.assertEqual(server.raw(content, half_close=True), b"")
        self.end(server)

    def test_clients_that_go_away_in_two_steps_free_their_place(self):
        server = self.serve("--max-slots", 1, "--queue", 4, "--tick-milliseconds", 10)
        for stream in (False, True):
            with server.stream(**LONG) as (_, first), contextlib.ExitStack() as links:
                next(first)  # keeps the others waiting
                for _ in range(3):
                    link = links.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
                    link.sendall(request("POST", TEXT, body(**LONG, stream=stream), JSON))
                    link.shutdown(socket.SHUT_WR)
                    received = b""
                    while not received.endswith(b":\n\n\r\n" if stream else b"100 Continue\r\n\r\n"):
                        received += link.recv(1)
                server.until(INSIDE, 4)
                links.close()
                server.until(INSIDE, 1)
            server.until(INSIDE, 0)
        self.end(server)

    def test_clients_that_do_not_read_are_cut(self):
        server = self.serve("--connections", 1, "--write-seconds", 0.5)
        with socket.socket() as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            link.connect(("127.0.0.1", server.port))
            link.sendall(request("GET", "/page.js") * 900)
            start = time.monotonic()
            self.assertEqual(server.ask("GET", "/health")[0], 200)
            self.assertLess(time.monotonic() - start, 5)
        self.end(server)

    def test_more_connections_than_threads_wait_or_are_turned_away(self):
        server = self.serve("--connections", 2, "--keep-alive-seconds", 5)
        with contextlib.ExitStack() as links:
            for _ in range(2 + 64):
                links.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
            status, headers, answer = server.ask("GET", "/health")
            self.assertEqual((status, headers["Retry-After"]), (429, "1"))
            self.assertEqual(answer["error"]["type"], "rate_limit_error")
        end = time.monotonic() + 10
        while (status := server.ask("GET", "/health")[0]) == 429 and time.monotonic() < end:
            time.sleep(0.02)  # the server notices one by one that they are closed
        self.assertEqual(status, 200)
        self.end(server)

    def test_a_system_without_more_threads_serves_with_those_it_has(self):
        try:  # a thread takes room for its stack
            server = Server(["sh", "-c", 'ulimit -S -s 65536 && ulimit -v 900000 && exec "$@"', "sh", str(PROGRAM),
                             "--port", "0"])
        except AssertionError:
            self.skipTest("the server does not start in so little memory")
        self.addCleanup(server.__exit__)
        with contextlib.ExitStack() as links:
            for _ in range(40):  # fewer than may wait
                links.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
        self.assertEqual(server.complete(prompt="ab", max_tokens=4)["choices"][0]["text"], "abab")
        self.end(server)

    def test_who_is_turned_away_is_not_listened_to(self):
        server = self.serve("--connections", 1, "--keep-alive-seconds", 20)

        def send_for_ever():
            sent, piece = 0, b"x" * 100000
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as link, contextlib.suppress(OSError):
                for _ in range(5000):
                    sent += link.send(piece)
            return sent

        with contextlib.ExitStack() as idle:
            for _ in range(1 + 64):
                idle.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            server.stop(signal.SIGSTOP)  # so that much has come before it looks
            timer = threading.Timer(0.5, server.stop, [signal.SIGCONT])
            timer.start()
            self.assertLess(max(at_once([send_for_ever] * 4)), 50e6)
            timer.join()
        server.until(INSIDE, 0)

    def test_an_answer_takes_so_long_and_no_longer(self):
        server = self.serve("--request-seconds", 0.5, "--tick-milliseconds", 20, "--max-slots", 1)
        status, _, answer = server.ask("POST", TEXT, LONG)
        self.assertEqual((status, answer["error"]["code"]), (408, "request_timeout"))
        parts = server.streamed(**LONG)
        self.assertGreater(len(parts), 1)
        self.assertEqual(parts[-1]["error"]["code"], "request_timeout")
        with server.stream(**LONG) as (_, first):  # it counts while others are served, too
            next(first)
            self.assertEqual(server.ask("POST", TEXT, {"prompt": "a", "max_tokens": 40})[0], 408)
        self.end(server)

    def test_the_key_opens_everything_and_nothing_is_open_without(self):
        server = self.serve("--api-key", "secret")
        closed = [("POST", TEXT), ("POST", "/v1/chat/completions"), ("GET", "/v1/models"),
                  ("GET", "/v1/models/scripted"), ("GET", "/metrics"), ("GET", "/nowhere"), ("GET", TEXT)]
        for method, path in closed:
            for key in (None, "", "Bearer ", "Bearer wrong", "Bearer secre", "Bearer secrets", "bearer Secret",
                        "Basic secret", "secret", "Bearersecret", "Bearer", "Bearer  secret", "Bearer secret ",
                        "bearer secret", "BEARER secret", "Bearer secretsecret"):
                given = {"Authorization": key} if key is not None else {}
                status, headers, answer = server.ask(method, path, None, given)
                # White space around a header's value is none of it, and a scheme has no case.
                accepted = key in ("Bearer secret ", "bearer secret", "BEARER secret")
                self.assertEqual(status == 401, not accepted, (method, path, key))
                if not accepted:
                    self.assertEqual(headers["WWW-Authenticate"], "Bearer")
                    self.assertEqual(answer["error"]["code"], "invalid_api_key")
        self.assertEqual(server.ask("GET", "http://x/metrics")[0], 401)
        for path in ("http://x/", "/health", "/", "/page.css", "/page.js", "/icon.svg"):
            self.assertEqual(server.ask("GET", path)[0], 200, path)
        key = {"Authorization": "Bearer secret"}
        self.assertEqual(server.ask("GET", "/metrics", None, key)[0], 200)
        self.assertEqual(server.ask("GET", "/nowhere", None, key)[0], 404)
        self.assertEqual(server.ask("POST", TEXT, {"prompt": "a"}, key)[0], 200)
        server.stop()
        self.assertEqual(server.wait(), (0, ""))

    def test_a_drain_finishes_what_runs_and_refuses_what_comes(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            server = self.serve("--tick-milliseconds", 10, "--max-slots", 1)
            with server.stream(prompt="abc", max_tokens=90) as (_, running):
                seen = [next(running)]
                with server.stream(prompt="abc", max_tokens=9) as (_, queued):
                    server.stop(number)
                    while server.ask("GET", "/health")[0] == 200:
                        time.sleep(0.01)
                    status, headers, answer = server.ask("POST", TEXT, {"prompt": "a"})
                    self.assertEqual((status, headers["Retry-After"], headers["Connection"]), (503, "1", "close"))
                    self.assertEqual(answer["error"]["code"], "draining")
                    seen += list(running)
                    self.assertEqual(list(queued)[-1], "[DONE]")
            self.assertEqual(seen[-1], "[DONE]")
            self.assertEqual(sum(len(part["mor"]["tokens"]) for part in seen[:-1]), 90)
            self.assertEqual(server.wait(), (0, ""))

    def test_a_drain_ends_in_time(self):
        server = self.serve("--tick-milliseconds", 10, "--drain-seconds", 0.5)
        with server.stream(**LONG) as (_, running):
            next(running)
            start = time.monotonic()
            server.stop()
            self.assertEqual(list(running)[-1]["error"]["code"], "draining")
        self.assertEqual(server.wait(), (0, ""))
        self.assertLess(time.monotonic() - start, 5)

    def test_a_second_signal_ends_at_once(self):
        server = self.serve("--tick-milliseconds", 10)
        with server.stream(**LONG) as (_, running):
            next(running)
            server.stop()
            while server.ask("GET", "/health")[0] == 200:
                time.sleep(0.01)
            server.stop()
            self.assertEqual(server.wait()[0], -signal.SIGTERM)

    def test_an_engine_that_breaks_down_ends_the_program(self):
        server = self.serve("--tick-milliseconds", 10)
        with server.stream(**LONG) as (_, running):
            next(running)
            status, _, answer = server.ask("POST", TEXT, {"prompt": [255]})
            self.assertEqual((status, answer["error"]["type"]), (500, "server_error"))
            self.assertIn("the script breaks down", list(running)[-1]["error"]["message"])
        self.assertEqual(server.wait(), (1, "scripted_server: step: the script breaks down\n"))

    def test_an_engine_that_breaks_down_early_leaves_nobody_waiting(self):
        server = self.serve("--tick-milliseconds", 300)
        with server.stream(**LONG) as (_, running):
            next(running)  # while it makes the next token, the others come
            answers = at_once([lambda: server.ask("POST", TEXT, {"prompt": [253]})] * 6)
            for status, _, answer in answers:
                self.assertIn((status, answer["error"]["type"]), ((500, "server_error"), (503, "server_error")))
            self.assertIn("breaks down early", list(running)[-1]["error"]["message"])
        self.assertEqual(server.wait(), (1, "scripted_server: the script breaks down early\n"))

    def test_an_address_that_is_taken(self):
        server = self.serve()
        with self.assertRaisesRegex(AssertionError, "cannot listen there"):
            scripted("--port", server.port)
        with self.assertRaisesRegex(AssertionError, "--max-slots: out of range.*1 to 4096, got 0"):
            scripted("--max-slots", 0)
        self.end(server)

    def test_what_is_given_but_empty_is_refused(self):
        for option in ("--api-key", "--host"):
            with self.assertRaisesRegex(AssertionError, f"{option}: empty"):
                scripted(option, "")
        with mock.patch.dict(os.environ, MOR_API_KEY=""):
            with self.assertRaisesRegex(AssertionError, "MOR_API_KEY: empty"):
                scripted()
            self.assertEqual(self.serve("--api-key", "secret").ask("GET", "/metrics")[0], 401)
        with mock.patch.dict(os.environ, MOR_API_KEY="secret"):
            self.assertEqual(self.serve().ask("GET", "/metrics")[0], 401)


if __name__ == "__main__":
    main()
