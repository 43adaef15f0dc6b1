# SPDX-License-Identifier: Apache-2.0
"""A page in headless Chromium, driven over its DevTools protocol with nothing but the standard library."""
import base64
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request


def find_browser():
    """The path of Chromium or Chrome, if there is one."""
    names = "chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"
    return next(filter(None, map(shutil.which, names)), None)


class Page:
    """One tab of a browser of its own."""

    def __init__(self, browser, width=1200):
        self.profile = tempfile.TemporaryDirectory(prefix="mor_browser_", ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--remote-debugging-port=0", f"--user-data-dir={self.profile.name}", f"--window-size={width},1000",
             "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        self.complaints = []  # errors and warnings of the page
        self.count = 0
        port = self._port()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            target = next(page for page in json.load(answer) if page["type"] == "page")
        self.link = socket.create_connection(("127.0.0.1", port), timeout=30)
        path = urllib.parse.urlparse(target["webSocketDebuggerUrl"]).path
        self.link.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                          "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                          f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n"
                          "Sec-WebSocket-Version: 13\r\n\r\n".encode())
        self.incoming = self.link.makefile("rb")
        while self.incoming.readline().strip():
            pass
        for domain in ("Runtime", "Log", "Page"):
            self.call(domain + ".enable")

    def _port(self):
        """The browser writes the port that it has found into its profile."""
        file = os.path.join(self.profile.name, "DevToolsActivePort")
        for _ in range(300):
            if os.path.exists(file):
                with open(file, encoding="utf-8") as lines:
                    if (first := lines.readline()).endswith("\n"):
                        return int(first)
            time.sleep(0.1)
        raise AssertionError("the browser does not start")

    def close(self):
        self.incoming.close()
        self.link.close()
        os.killpg(self.process.pid, signal.SIGKILL)  # its helpers too: they would go on writing into the profile
        self.process.wait(30)
        self._forget_profile()

    def _forget_profile(self):
        """What a dying helper still writes can outlive one attempt."""
        for _ in range(50):
            self.profile.cleanup()
            if not os.path.exists(self.profile.name):
                return
            time.sleep(0.1)

    def call(self, method, **arguments):
        """The result of a command; what the page complains about on the way is kept."""
        self.count += 1
        content = json.dumps({"id": self.count, "method": method, "params": arguments}).encode()
        length = len(content)
        short = length < 126
        head = struct.pack(">BB", 0x81, 0x80 | length) if short else struct.pack(">BBH", 0x81, 0x80 | 126, length)
        self.link.sendall(head + bytes(4) + content)  # masked, with zeros
        while True:
            message = self._receive()
            if message.get("id") == self.count:
                return message.get("result", {})
            self._note(message)

    def _receive(self):
        length = self.incoming.read(2)[1]
        if length >= 126:
            length = struct.unpack(">H" if length == 126 else ">Q", self.incoming.read(2 if length == 126 else 8))[0]
        return json.loads(self.incoming.read(length))

    def _note(self, message):
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(message["params"]["exceptionDetails"])
        if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] in ("error", "warning"):
            self.complaints.append(message["params"]["entry"]["text"])

    def run(self, script):
        """The value of an expression."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def until(self, condition, seconds=20):
        end = time.monotonic() + seconds
        while not self.run(condition):
            if time.monotonic() > end:
                raise AssertionError(f"never: {condition}; {self.complaints}")
            time.sleep(0.02)

    def open(self, address, dark=False):
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url=address)
        self.until(f"document.readyState == 'complete' && location.href.startsWith({json.dumps(address)})")
