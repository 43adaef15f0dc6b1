#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""serve on trained models: what it answers is what generate prints, for every policy, alone and among others."""
import json
import random
import re
import shlex
import shutil
import socket
import subprocess
import sys
import unittest

from example_programs import PROGRAMS, SKIPPED, SOURCE, ProgramTest, command, main
from server_client import Server, at_once, request

PROMPTS = ["the river", "the winter snow", "until june", "t", "for the first mile it is hardly a river at all until"]
POLICIES = {  # how a model is trained
    "expert": [],
    "token": ["--router", "token_choice"],
    "plain": ["--router", "all_tokens", "--sharing", "none", "--layers", "3"],
    "sequence": ["--router", "all_tokens", "--sharing", "sequence"],
}
SERVED = [("expert", "recursion_wise"), ("expert", "shared"), ("expert", "hybrid"), ("token", "recursion_wise"),
          ("token", "shared"), ("token", "hybrid"), ("plain", None), ("sequence", "recursion_wise"),
          ("sequence", "shared")]


class Serve(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        test = cls()
        cls.models = {name: test.train(name, "--steps", "150", "--lr", "0.01", "--context", "96", *flags)
                      for name, flags in POLICIES.items()}

    def serve(self, model, *arguments):
        server = Server(command("serve", "--model", self.models[model], "--port", "0", "--threads", "1", *arguments))
        self.addCleanup(server.__exit__)
        return server

    def end(self, server):
        server.until("mor_generations_inside", 0)
        figures = server.metrics()
        # What is not free is kept for prompts to come.
        kept = figures["mor_engine_kv_pages_free"] + figures["mor_engine_prefix_pages"]
        self.assertEqual(kept, figures["mor_engine_kv_pages"])
        self.assertEqual((figures["mor_engine_running"], figures["mor_engine_queued"]), (0, 0))
        server.stop()
        self.assertEqual(server.wait(), (0, ""))

    def generated(self, model, prompt, *flags):
        """(text, mean depth) that generate prints."""
        done = self.run_program("generate", "--model", self.models[model], "--prompt", prompt, "--threads", "1",
                                "--ignore-eos", *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.decode()[:-1]

    def test_every_policy_serves_what_it_generates(self):
        for model, cache in SERVED:
            choice = ["--cache", cache] if cache else []
            server = self.serve(model, *choice)
            for prompt in PROMPTS[:2]:
                answer = server.complete(prompt=prompt, max_tokens=40, temperature=0, ignore_eos=True)
                self.assertEqual(answer["choices"][0]["text"],
                                 self.generated(model, prompt, "--max-tokens", "40", "--temperature", "0", *choice),
                                 (model, cache, prompt))
            self.end(server)

    def test_a_seed_gives_the_text_that_generate_gives(self):
        server = self.serve("expert")
        for seed in range(3):
            answer = server.complete(prompt="the river", max_tokens=50, seed=seed, top_k=10, top_p=0.9, min_p=0.01,
                                     repetition_penalty=1.1, temperature=0.8, ignore_eos=True)
            self.assertEqual(answer["choices"][0]["text"], self.generated(
                "expert", "the river", "--max-tokens", "50", "--seed", str(seed), "--top-k", "10", "--top-p", "0.9",
                "--min-p", "0.01", "--repetition-penalty", "1.1", "--temperature", "0.8"))
        free = {server.complete(prompt="the river", max_tokens=30)["choices"][0]["text"] for _ in range(5)}
        self.assertGreater(len(free), 1)
        self.end(server)

    def test_an_answer_does_not_depend_on_its_neighbours(self):
        chance = random.Random(2)
        for model, cache in (("expert", "recursion_wise"), ("token", "shared")):
            server = self.serve(model, "--cache", cache, "--max-slots", "5", "--queue", "100")
            wanted = [{"prompt": chance.choice(PROMPTS), "max_tokens": chance.randint(1, 40),
                       "seed": chance.randrange(9), "temperature": chance.choice([0, 0.9]), "logprobs": 0} for _ in range(40)]
            alone = [server.complete(**fields) for fields in wanted]
            together = at_once([lambda fields=fields: server.complete(**fields) for fields in wanted])
            for fields, a, b in zip(wanted, alone, together):
                self.assertEqual((a["choices"], a["usage"], a["mor"]), (b["choices"], b["usage"], b["mor"]), fields)
            self.end(server)

    def test_depth_knobs_are_kept_to(self):
        for model in ("expert", "token"):
            server = self.serve(model)
            for least, most in ((1, 1), (2, 2), (3, 3), (2, 3), (1, 2)):
                answer = server.complete(prompt=PROMPTS[0], max_tokens=30, temperature=0, min_depth=least,
                                         max_depth=most)
                self.assertTrue(all(least <= depth <= most for depth in answer["mor"]["depths"]), answer["mor"])
            self.end(server)
        server = self.serve("expert")
        depths = [server.complete(prompt=PROMPTS[0], max_tokens=30, temperature=0, depth_threshold=threshold)
                  ["mor"]["mean_depth"] for threshold in (-100, 0, 100)]
        self.assertEqual((depths[0], depths[2]), (3, 1))
        self.end(server)

    def test_a_stop_string_ends_the_text_before_it(self):
        server = self.serve("expert")
        whole = server.complete(prompt="the river", max_tokens=40, temperature=0)["choices"][0]["text"]
        stop = whole[9:13]
        for fields in ({}, {"stream_options": {"include_usage": True}}):
            parts = server.streamed(prompt="the river", max_tokens=40, temperature=0, stop=[stop, "never"], **fields)
            text = "".join(choice["text"] for part in parts[:-1] for choice in part["choices"])
            self.assertEqual(text, whole[:whole.index(stop)])
        self.end(server)

    def test_a_chat(self):
        server = self.serve("expert", "--context", "512")
        status, _, answer = server.ask("POST", "/v1/chat/completions", {
            "messages": [{"role": "user", "content": "the river"}], "max_tokens": 20, "temperature": 0})
        self.assertEqual(status, 200)
        self.assertEqual(answer["usage"]["completion_tokens"], 20)
        self.assertEqual(server.ask("GET", "/v1/models")[2]["data"][0]["mor"]["context"], 512)
        self.end(server)
        server = self.serve("expert")  # of 96 tokens
        usage = server.complete(prompt="the river", max_tokens=128, clip_to_context=True, ignore_eos=True)["usage"]
        self.assertEqual(usage["total_tokens"], 96)
        self.end(server)

    @unittest.skipUnless(shutil.which("curl"), "there is no curl here")
    def test_the_documented_commands_work(self):
        text = (SOURCE / "docs" / "inference.md").read_text(encoding="utf-8").replace("\\\n", "")
        commands = re.findall(r"^curl .*127\.0\.0\.1:8080.*$", text, re.MULTILINE)
        self.assertGreaterEqual(len(commands), 5)
        server = self.serve("expert", "--context", "512")
        for line in commands:
            words = [word.replace(":8080", f":{server.port}") for word in shlex.split(line)]
            done = subprocess.run([words[0], "--silent", "--show-error", "--fail", *words[1:]], capture_output=True,
                                  timeout=60, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, b""), line)
            if '"stream": true' in line:
                self.assertTrue(done.stdout.endswith(b"data: [DONE]\n\n"), line)
            elif "metrics" not in line:
                json.loads(done.stdout)
        self.end(server)

    def test_clients_that_go_away_leave_nothing_behind(self):
        server = self.serve("expert", "--context", "4096", "--max-slots", "3", "--cache-megabytes", "1")
        fields = '{"prompt":"the river","max_tokens":3000,"stream":%s,"ignore_eos":true}'
        for stream in ("true", "false"):
            for _ in range(6):
                with socket.create_connection(("127.0.0.1", server.port)) as link:
                    link.sendall(request("POST", "/v1/completions", (fields % stream).encode(),
                                         "Content-Type: application/json"))
                    if stream == "true":
                        link.recv(1000)
            server.until("mor_generations_inside", 0)
            server.until("mor_engine_running", 0)
        self.end(server)

    def test_a_text_that_would_never_fit_the_memory_is_the_clients_mistake(self):
        server = self.serve("expert", "--context", "100000", "--cache-megabytes", "1")
        status, _, answer = server.ask("POST", "/v1/completions", {"prompt": "the river", "max_tokens": 99000})
        self.assertEqual((status, answer["error"]["type"]), (400, "invalid_request_error"), answer)
        server.complete(prompt="the river", max_tokens=100)
        self.end(server)

    def test_what_cannot_be_served_is_refused(self):
        serve = ("serve", "--model", self.models["expert"], "--port", "0")
        self.refuse("give one model", "serve")
        self.refuse("nowhere: cannot open", "serve", "--model", self.folder / "nowhere")
        self.refuse("--max-slots: out of range.*1 to 4096, got 0", *serve, "--max-slots", "0")
        self.refuse("--port: out of range", *serve, "--port", "65536")
        self.refuse("--cache-megabytes: out of range", *serve, "--cache-megabytes", "-1")
        self.refuse("--threads: out of range", *serve, "--threads", "-1")
        self.refuse("--host: empty", *serve, "--host", "")
        self.refuse("--api-key: empty", *serve, "--api-key", "")
        self.refuse("not causal", *serve, "--routing", "topk")
        self.refuse("no-such-address.*cannot listen there", *serve, "--host", "no-such-address.invalid")
        self.assertIn(b"--drain-seconds", self.succeed("serve", "--help"))


if __name__ == "__main__":
    if not (PROGRAMS / "serve").exists():
        print("serve is not built")
        sys.exit(SKIPPED)
    main()
