#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the server answers: OpenAI's shapes, text that never shows a stop string, errors that name the field."""
import json
import os
import random
import re
import unittest

from scripted_server import main, scripted

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
END = 256
REQUESTS = int(os.environ.get("MOR_TEST_REQUESTS", "3000"))  # generated ones


def expected(prompt, tokens, stop=()):
    """(text, whether it was stopped) of a prompt of bytes, repeated up to so many tokens."""
    whole = (prompt * (tokens // len(prompt) + 1))[:tokens]
    ends = {}
    for text in stop:
        at = whole.find(text)
        if at >= 0:
            ends.setdefault(at + len(text), []).append(at)
    if not ends:
        return whole.decode("utf-8", "replace"), False
    return whole[:min(ends[min(ends)])].decode("utf-8", "replace"), True


class Api(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = scripted()

    @classmethod
    def tearDownClass(cls):
        with cls.server:
            cls.server.stop()
            assert cls.server.wait() == (0, "")

    def refuse(self, status, parameter, fields, path=TEXT, pattern=""):
        base = {"messages": [{"role": "user", "content": "hi"}]} if path == CHAT else {"prompt": "hi"}
        answer = self.server.ask("POST", path, {**base, "max_tokens": 2, **fields})
        self.assertEqual(answer[0], status, f"{fields}: {answer}")
        error = answer[2]["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertEqual((error["type"], error["param"]), ("invalid_request_error", parameter), f"{fields}: {error}")
        self.assertTrue(re.search(pattern, error["message"]), f"no /{pattern}/ in: {error['message']}")

    def test_a_completion(self):
        answer = self.server.complete(prompt="hello ", max_tokens=10, model="scripted", seed=7)
        self.assertRegex(answer["id"], "^cmpl-[0-9a-f]{32}$")
        self.assertEqual(answer["object"], "text_completion")
        self.assertEqual(answer["model"], "scripted")
        self.assertEqual(answer["choices"], [{"index": 0, "text": "hello hell", "logprobs": None,
                                              "finish_reason": "length"}])
        self.assertEqual(answer["usage"], {"prompt_tokens": 6, "completion_tokens": 10, "total_tokens": 16})
        self.assertEqual(answer["mor"], {"tokens": list("hello hell"), "depths": [1, 2, 3] * 3 + [1],
                                         "mean_depth": 1.9, "seed": 7})

    def test_a_chat(self):
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
                    {"role": "assistant", "content": [{"type": "text", "text": "He"}, {"type": "text", "text": "llo"}]},
                    {"role": "user", "content": "é"}]
        prompt = "System: Be brief.\n\nUser: Hi\n\nAssistant: Hello\n\nUser: é\n\nAssistant:"
        status, _, answer = self.server.ask("POST", CHAT, {"messages": messages, "logprobs": True})
        self.assertEqual(status, 200)
        self.assertRegex(answer["id"], "^chatcmpl-[0-9a-f]{32}$")
        self.assertEqual(answer["object"], "chat.completion")
        choice = answer["choices"][0]
        self.assertEqual(choice["message"], {"role": "assistant", "content": "System: Be brief.", "refusal": None})
        self.assertEqual(choice["finish_reason"], "stop")  # before the turn of the user
        self.assertEqual(answer["usage"]["prompt_tokens"], len(prompt.encode()))
        content = choice["logprobs"]["content"]
        self.assertEqual("".join(token["token"] for token in content), "System: Be brief.")
        self.assertEqual(content[0], {"token": "S", "logprob": -0.5, "bytes": [83], "top_logprobs": []})
        self.assertEqual(self.server.ask("POST", CHAT, {"messages": messages, "max_completion_tokens": 3})[2]
                         ["choices"][0]["message"]["content"], "Sys")

    def test_an_answer_comes_back_as_history(self):
        messages = [{"role": "user", "content": "Hi"}]
        for turn in ("and then?", "and now?"):
            status, _, answer = self.server.ask("POST", CHAT, {"messages": messages, "max_tokens": 5})
            self.assertEqual((status, answer["choices"][0]["message"]["content"]), (200, "User:"), answer)
            messages += [answer["choices"][0]["message"], {"role": "user", "content": turn}]
        self.assertEqual(answer["usage"]["prompt_tokens"],
                         len("User: Hi\n\nAssistant: User:\n\nUser: and then?\n\nAssistant:"))
        nothing = {"refusal": [None, ""], "tool_calls": [None, []], "function_call": [None], "audio": [None],
                   "annotations": [None, []]}
        something = {"refusal": ["no", 1, True], "tool_calls": [[{"id": "x"}], "x", 0], "function_call": [{"name": "f"}],
                     "audio": [{"id": "x"}], "annotations": [[{}]]}
        for field, values in nothing.items():
            for value in values:
                history = [{"role": "assistant", "content": "Hi", field: value}]
                self.assertEqual(self.server.ask("POST", CHAT, {"messages": history})[0], 200, (field, value))
                self.refuse(400, field, {"messages": [{"role": "user", "content": "Hi", field: value}]}, CHAT,
                            "unrecognized")
        for field, values in something.items():
            for value in values:
                self.refuse(400, "messages", {"messages": [{"role": "assistant", "content": "Hi", field: value}]}, CHAT,
                            f"{field}: not supported")

    def test_a_stream_joins_to_the_whole_answer(self):
        for extra in ({}, {"stop": ["o h"]}, {"echo": True}, {"logprobs": 0}, {"echo": True, "logprobs": 0}):
            fields = {"prompt": "hello ", "max_tokens": 20, "seed": 3, **extra}
            whole = self.server.complete(**fields)
            parts = self.server.streamed(**fields, stream_options={"include_usage": True})
            self.assertEqual(parts.pop(), "[DONE]")
            usage = parts.pop()
            self.assertEqual((usage["choices"], usage["usage"]), ([], whole["usage"]))
            self.assertEqual({part["id"] for part in parts}, {usage["id"]})
            self.assertTrue(all(part["usage"] is None for part in parts))
            choices = [part["choices"][0] for part in parts]
            self.assertEqual("".join(choice["text"] for choice in choices), whole["choices"][0]["text"])
            self.assertEqual([choice["finish_reason"] for choice in choices],
                             [None] * (len(choices) - 1) + [whole["choices"][0]["finish_reason"]])
            for name in ("tokens", "depths"):
                self.assertEqual(sum((part["mor"][name] for part in parts), []), whole["mor"][name])
            self.assertEqual(parts[-1]["mor"]["mean_depth"], whole["mor"]["mean_depth"])
            if "logprobs" in extra:
                for name in ("tokens", "token_logprobs", "text_offset"):
                    self.assertEqual(sum((choice["logprobs"][name] for choice in choices if choice["logprobs"]), []),
                                     whole["choices"][0]["logprobs"][name])

    def test_a_chat_stream(self):
        parts = self.server.streamed(CHAT, messages=[{"role": "user", "content": "hi"}], max_tokens=4, logprobs=True)
        self.assertEqual(parts.pop(), "[DONE]")
        self.assertEqual({part["object"] for part in parts}, {"chat.completion.chunk"})
        deltas = [part["choices"][0]["delta"] for part in parts]
        self.assertEqual(deltas[0], {"role": "assistant", "content": ""})
        self.assertEqual(deltas[-1], {})
        self.assertEqual("".join(delta["content"] for delta in deltas[1:-1]), "User")
        self.assertEqual(parts[-1]["choices"][0]["finish_reason"], "length")
        self.assertNotIn("usage", parts[-1])

    def test_a_stop_string_never_leaks(self):
        chance = random.Random(1)
        words = ["a", "b", "é", "漢", "🙂", "\n"]
        for case in range(150):
            alphabet = chance.sample(words, chance.randint(1, 4))
            prompt = "".join(chance.choice(alphabet) for _ in range(chance.randint(1, 12)))
            stop = ["".join(chance.choice(alphabet) for _ in range(chance.randint(1, 5)))
                    for _ in range(chance.randint(1, 4))]
            tokens = chance.randint(1, 40)
            text, stopped = expected(prompt.encode(), tokens, [s.encode() for s in stop])
            fields = {"prompt": list(prompt.encode()), "max_tokens": tokens, "stop": stop}
            if case % 3 == 0:
                parts = self.server.streamed(**fields)[:-1]
                seen, reason = "", parts[-1]["choices"][0]["finish_reason"]
                for part in parts:
                    seen += part["choices"][0]["text"]
                    self.assertTrue(text.startswith(seen), (fields, seen, text))
                shown = sum((part["mor"]["tokens"] for part in parts), [])
            else:
                answer = self.server.complete(**fields)
                seen, reason, shown = (answer["choices"][0]["text"], answer["choices"][0]["finish_reason"],
                                       answer["mor"]["tokens"])
            self.assertEqual((seen, reason), (text, "stop" if stopped else "length"), fields)
            self.assertEqual("".join(shown), text)
            self.assertLessEqual(len(shown), len(text.encode()) if stopped else tokens)

    def test_tokens_come_as_whole_characters(self):
        prompt = "aé漢🙂"
        answer = self.server.complete(prompt=list(prompt.encode()), max_tokens=len(prompt.encode()))
        self.assertEqual(answer["mor"]["tokens"], ["a", "", "é", "", "", "漢", "", "", "", "🙂"])
        for part in self.server.streamed(prompt=list(prompt.encode()), max_tokens=30)[:-1]:
            self.assertNotIn("\ufffd", part["choices"][0]["text"])
        for raw in (b"a\xff", b"a\xc3", b"\xe6\xbca", b"\x80\xf0\x9f\x99"):
            text, _ = expected(raw, 11)
            self.assertEqual(self.server.complete(prompt=list(raw), max_tokens=11)["choices"][0]["text"], text, raw)

    def test_the_end_token_ends_the_text_and_is_no_part_of_it(self):
        answer = self.server.complete(prompt=[104, 105, END], max_tokens=9)
        self.assertEqual((answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]), ("hi", "stop"))
        self.assertEqual(answer["usage"]["completion_tokens"], 3)
        self.assertEqual(answer["mor"]["tokens"], ["h", "i", ""])
        answer = self.server.complete(prompt=[104, 105, END], max_tokens=9, ignore_eos=True)
        self.assertEqual((answer["choices"][0]["text"], answer["choices"][0]["finish_reason"]), ("hihihi", "length"))

    def test_the_text_of_a_control_token_is_text(self):
        self.assertEqual(self.server.complete(prompt="<|endoftext|>")["usage"]["prompt_tokens"], 13)
        self.assertEqual(self.server.complete(prompt="")["usage"]["prompt_tokens"], 1)

    def test_prompts_in_every_form(self):
        for prompt in ("ab", [97, 98], ["ab"], [[97, 98]]):
            answer = self.server.complete(prompt=prompt, max_tokens=4, echo=True)
            self.assertEqual(answer["choices"][0]["text"], "ababab")
            self.assertEqual(answer["mor"]["tokens"], list("abab"))

    def test_log_probabilities_and_their_offsets(self):
        found = self.server.complete(prompt="é1", max_tokens=4, logprobs=0, echo=True)["choices"][0]["logprobs"]
        self.assertEqual(found, {"tokens": ["", "é", "1", "\ufffd"], "token_logprobs": [-0.5] * 4,
                                 "top_logprobs": None, "text_offset": [2, 2, 3, 4]})

    def test_lengths(self):
        self.assertEqual(self.server.complete(prompt="a")["usage"]["completion_tokens"], 16)
        self.assertEqual(self.server.complete(prompt="a" * 4090)["usage"]["completion_tokens"], 6)
        self.assertEqual(self.server.complete(prompt="a" * 4090, max_tokens=6)["usage"]["completion_tokens"], 6)
        self.refuse(400, "prompt", {"prompt": "a" * 4090, "max_tokens": 7}, pattern="at most 4096 tokens, got 4097")
        self.refuse(400, "prompt", {"prompt": "a" * 4096}, pattern="context")
        self.refuse(400, "prompt", {"max_tokens": 4096}, pattern="context")
        self.refuse(400, "messages", {"messages": [{"role": "user", "content": "a" * 5000}]}, CHAT, "context")
        for prompt, asked, got in (("a" * 4090, 7, 6), ("a" * 4095, 2**31 - 1, 1), ("a" * 4090, 5, 5), ("a", None, 16)):
            answer = self.server.complete(prompt=prompt, max_tokens=asked, clip_to_context=True)
            self.assertEqual((answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]),
                             (got, "length"))
        self.refuse(400, "prompt", {"prompt": "a" * 4096, "clip_to_context": True}, pattern="context")
        self.refuse(400, "prompt", {"max_tokens": 4096, "clip_to_context": False}, pattern="context")
        status, _, answer = self.server.ask("POST", CHAT, {
            "messages": [{"role": "user", "content": "a"}], "max_completion_tokens": 5000, "clip_to_context": True,
            "stop": ["s"]})
        self.assertEqual((status, answer["choices"][0]["message"]["content"]), (200, "U"))

    def test_every_field_is_typed_and_ranged(self):
        wrong = {
            "model": [1, ["scripted"]],
            "prompt": [None, 1, True, {}, [], [[]], [1.5], [-1], [257], ["a", "b"], [[1], [2]], [1, "a"], ["a", 1]],
            "max_tokens": [0, -1, 1.5, "2", True, 2**31, 2**63, 2**70, 1e300],
            "temperature": ["1", -0.1, True, [], 1e999],
            "top_p": [0, -1, 1.1, "1"],
            "top_k": [-1, 1.5, "1", 2**40],
            "min_p": [-0.1, 1.1, []],
            "repetition_penalty": [0, -1, "1"],
            "seed": ["1", 1.5, True, 2**70],
            "stop": [1, {}, "", [""], ["a"] * 5, "a" * 257, [1], [None], [["a"]]],
            "logprobs": [1, 5, -1, 6, "1", True, 0.5],
            "n": [0, 2, "1", True, 1.5],
            "stream": [1, "true", []],
            "echo": [1, "true"],
            "best_of": [2, "1"],
            "suffix": ["x", 1],
            "frequency_penalty": [0.5, "0"],
            "presence_penalty": [-1],
            "logit_bias": [{"50256": -100}, []],
            "user": [1],
            "depth_threshold": ["1", [], 1e999],
            "min_depth": [0, 4, 1.5, "1"],
            "max_depth": [0, 4, -1, "1"],
            "ignore_eos": [1],
            "clip_to_context": [1, "true"],
        }
        for field, values in wrong.items():
            for value in values:
                if value == float("inf"):
                    answer = self.server.ask("POST", TEXT, '{"prompt":"a","%s":1e999}' % field,
                                             {"Content-Type": "application/json"})
                    self.assertEqual(answer[0], 400)
                    continue
                self.refuse(400, field, {field: value})
        self.refuse(400, "min_depth", {"min_depth": 3, "max_depth": 2}, pattern="at most 2, got 3")
        self.refuse(400, "stream_options", {"stream_options": {}})
        self.refuse(400, "stream_options", {"stream": True, "stream_options": 1})
        self.refuse(400, "stream_options.include_usage", {"stream": True, "stream_options": {"include_usage": 1}})
        self.refuse(400, "x", {"stream": True, "stream_options": {"x": 1}})
        self.refuse(400, "temperatur", {"temperatur": 1}, pattern="unrecognized request argument")
        self.refuse(400, "messages", {"messages": []})
        self.refuse(404, "model", {"model": "gpt-4"}, pattern="no such model")

    def test_every_field_of_a_chat_is_typed(self):
        user = {"role": "user", "content": "hi"}
        for messages in (None, 1, "hi", {}, [], [1], [[]], [{}], [{"role": "user"}], [{"content": "hi"}],
                         [{"role": "nobody", "content": "hi"}], [{"role": "tool", "content": "hi"}],
                         [{"role": 1, "content": "hi"}], [{"role": "user", "content": 1}],
                         [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
                         [{"role": "user", "content": [1]}], [user, 7]):
            status, _, answer = self.server.ask("POST", CHAT, {"messages": messages})
            self.assertEqual(status, 400, messages)
            self.assertTrue(answer["error"]["param"].startswith("messages"), answer)
        for field, values in {"logprobs": [0, "true"], "top_logprobs": [1, "0"], "max_completion_tokens": [0, "1"],
                              "tools": [[{"type": "function"}]], "response_format": [{"type": "json_object"}],
                              "modalities": [["audio"]], "tool_choice": ["auto"]}.items():
            for value in values:
                self.refuse(400, field, {field: value}, CHAT)
        self.refuse(400, "prompt", {"prompt": "hi"}, CHAT)
        self.refuse(400, "echo", {"echo": True}, CHAT)

    def test_null_is_absent_and_what_asks_for_nothing_is_accepted(self):
        nothing = {name: None for name in (
            "model", "max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop",
            "stream", "stream_options", "n", "frequency_penalty", "presence_penalty", "logit_bias", "user", "logprobs",
            "depth_threshold", "min_depth", "max_depth", "clip_to_context")}
        self.assertEqual(self.server.complete(prompt="a", **nothing, echo=None, best_of=None, suffix=None)
                         ["choices"][0]["text"], "a" * 16)
        self.server.complete(prompt="a", n=1, best_of=1, frequency_penalty=0.0, presence_penalty=0, logit_bias={},
                             user="me", suffix="", stop=[], seed=-5, temperature=0, top_k=0, metadata={"a": "b"},
                             store=False, stream=False, min_depth=1, max_depth=3, depth_threshold=-0.25)
        status, _, _ = self.server.ask("POST", CHAT, {
            "messages": [{"role": "developer", "content": "x", "name": "me"}], "tools": [], "tool_choice": "none",
            "response_format": {"type": "text"}, "modalities": ["text"], "parallel_tool_calls": True,
            "top_logprobs": 0, "service_tier": "auto", **nothing})
        self.assertEqual(status, 200)
        self.assertEqual(self.server.complete(prompt="a", seed=2**64 - 1)["mor"]["seed"], 2**64 - 1)

    def test_strict_json(self):
        for body in ("", "{", "[]", "1", "null", '"a"', '{"prompt":"a"}x', '{"prompt":"a","prompt":"b"}',
                     "{'prompt':'a'}", '{"prompt":"a",}', '{"prompt":NaN}', '\ufeff{"prompt":"a"}',
                     '{"prompt":' + "[" * 100 + "]" * 100 + "}", '{"prompt":"\\ud800"}', '{"prompt":"a\x01"}'):
            answer = self.server.ask("POST", TEXT, body.encode(), {"Content-Type": "application/json"})
            self.assertEqual((answer[0], answer[2]["error"]["type"]), (400, "invalid_request_error"), body)
        for raw in (b'{"prompt":"\xff"}', b'{"prompt":"\xed\xa0\x80"}', b"\x00", bytes(range(256))):
            answer = self.server.ask("POST", TEXT, raw, {"Content-Type": "application/json"})
            self.assertEqual(answer[0], 400, raw)

    def test_what_the_engine_refuses_is_the_clients_mistake(self):
        status, _, answer = self.server.ask("POST", TEXT, {"prompt": [254]})
        self.assertEqual(status, 400)
        self.assertIn("the script refuses this", answer["error"]["message"])
        with self.assertRaisesRegex(AssertionError, "400"), self.server.stream(prompt=[254]):
            pass

    def test_the_model(self):
        status, _, models = self.server.ask("GET", "/v1/models")
        self.assertEqual((status, models["object"], len(models["data"])), (200, "list", 1))
        self.assertEqual((models["data"][0]["id"], models["data"][0]["object"]), ("scripted", "model"))
        self.assertEqual(models["data"][0]["mor"], {"context": 4096, "vocabulary": 257, "recursions": 3})
        self.assertEqual(self.server.ask("GET", "/v1/models/scripted")[2], models["data"][0])
        self.assertEqual(self.server.ask("GET", "/v1/models/gpt-4")[0], 404)
        self.assertEqual(self.server.ask("GET", "/health")[::2], (200, {"status": "ok"}))

    def test_the_page_loads_nothing_from_elsewhere(self):
        for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript"),
                           ("/icon.svg", "image/svg+xml")):
            status, headers, content = self.server.ask("GET", path)
            self.assertEqual((status, headers["Content-Type"].split(";")[0]), (200, kind))
            policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
            self.assertEqual(policy["default-src"], "'none'")
            self.assertEqual({value for name, value in policy.items()}, {"'none'", "'self'"})
            text = content.decode()
            self.assertFalse(re.search(r"(?<!xmlns=\")https?://", text), path)
            if path == "/":
                inline = r"<script(?! src=\"/page\.js\" defer></script>)|<style|\son\w+=|style="
                self.assertFalse(re.search(inline, text))
                self.assertEqual(headers["X-Content-Type-Options"], "nosniff")
        css = self.server.ask("GET", "/page.css")[2].decode()
        self.assertIn("prefers-color-scheme:dark", css)
        self.assertIn("--depth-3:", css)
        self.assertNotIn("--depth-4:", css)

    def test_metrics_count_what_happened(self):
        self.server.until("mor_engine_running", 0)
        before = self.server.metrics()
        self.server.complete(prompt="abc", max_tokens=6)
        self.server.complete(prompt="abc", max_tokens=6, stop="c")
        self.refuse(400, "n", {"n": 3})
        self.server.until("mor_generations_inside", 0)
        after = self.server.metrics()

        def grown(name):
            return after.get(name, 0) - before.get(name, 0)

        self.assertEqual(grown('mor_generations_total{outcome="length"}'), 1)
        self.assertEqual(grown('mor_generations_total{outcome="stop"}'), 1)
        self.assertEqual(grown("mor_prompt_tokens_total"), 6)
        self.assertEqual([grown('mor_generated_tokens_total{depth="%d"}' % d) for d in range(4)], [0, 3, 3, 3])
        self.assertEqual(grown("mor_generation_seconds_count"), 2)
        self.assertEqual(grown('mor_first_token_seconds_bucket{le="+Inf"}'), 2)
        self.assertEqual(grown('mor_http_requests_total{method="POST",path="/v1/completions",code="200"}'), 2)
        self.assertEqual(grown('mor_http_requests_total{method="POST",path="/v1/completions",code="400"}'), 1)

    def test_generated_requests_give_answers_or_the_clients_mistakes(self):
        chance = random.Random(5)
        connection = self.server.connect()
        seen = {}
        for i in range(REQUESTS):
            if i % 900 == 899:  # the server ends a connection after so many
                connection.close()
            chat = chance.random() < 0.4
            status, _, answer = self.server.ask("POST", CHAT if chat else TEXT, json.dumps(some_fields(chance, chat)),
                                                {"Content-Type": "application/json"}, connection)
            seen[status] = seen.get(status, 0) + 1
            self.assertIn(status, (200, 400, 404), answer)
        connection.close()
        self.assertGreater(seen[200], REQUESTS // 10)
        self.assertGreater(seen[400], REQUESTS // 10)
        self.server.until("mor_generations_inside", 0)


def some_value(chance, depth=0):
    kind = chance.randrange(11 if depth < 3 else 8)
    if kind < 3:
        return chance.choice([0, 1, 2, 3, -1, 16, 255, 256, 257, 2**31, 2**53, 2**63, 2**64, -2**63, 10**30])
    if kind < 5:
        return chance.choice([0.0, 0.5, 1.0, 1.5, -0.5, 1e-300, 1e300, -1e300])
    if kind < 7:
        return chance.choice(["", "a", "user", "assistant", "text", "é", "\x00", "🙂" * 9, "a" * 300, "scripted", "\\",
                              "\u2028"])
    if kind < 8:
        return chance.choice([True, False, None])
    if kind < 10:
        return [some_value(chance, depth + 1) for _ in range(chance.randrange(5))]
    return {chance.choice(["role", "content", "type", "text", "x"]): some_value(chance, depth + 1)
            for _ in range(chance.randrange(4))}


def some_fields(chance, chat):
    """Mostly right, with some fields from anywhere."""
    fields = {"max_tokens": chance.randint(1, 6)}
    if chat:
        fields["messages"] = [{"role": chance.choice(["user", "system", "assistant"]), "content": "hi"}]
    else:
        fields["prompt"] = chance.choice(["a", "ab", [1, 2, 3], [[7]], ["é"]])
    good = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 1, "stop": ["b"], "n": 1, "user": "u",
            "repetition_penalty": 1.2, "min_depth": 1, "max_depth": 2, "depth_threshold": 0.5, "logit_bias": {}}
    names = [*good, "model", "stream_options", "logprobs", "echo", "suffix", "best_of", "tools", "nonsense",
             "max_tokens", "prompt", "messages", "response_format", "metadata", "top_logprobs", "max_completion_tokens", ""]
    for name in chance.sample(names, chance.randrange(5)):
        fields[name] = good[name] if name in good and chance.random() < 0.6 else some_value(chance)
    if fields.get("max_tokens") not in (None, True, False) and isinstance(fields["max_tokens"], int):
        fields["max_tokens"] = fields["max_tokens"] if fields["max_tokens"] < 17 else 17
    return fields


if __name__ == "__main__":
    main()
