#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input ends with status 2 and one line that says what is wrong, where, and what was expected."""
import json
import os
import shutil
import struct
import subprocess

from example_programs import ProgramTest, TINY, command, main


class BadInput(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = cls.folder / "model"
        subprocess.run(command("train", "--data", cls.data, "--out", cls.model, *TINY, "--steps", "2"), check=True,
                       capture_output=True)

    def copy(self, name):
        folder = self.folder / name
        shutil.copytree(self.model, folder)
        return folder

    def refuse_training(self, pattern, *arguments, data=None):
        self.refuse(pattern, "train", "--data", data or self.data, "--out", self.folder / "never", *TINY, *arguments)
        self.assertFalse((self.folder / "never").exists())

    def test_help_and_usage(self):
        for program in ("train", "generate", "evaluate", "prepare"):
            self.assertIn(b"--help", self.succeed(program, "--help"))
        self.refuse("--nonsense", "train", "--data", self.data, "--out", self.folder / "never", "--nonsense")
        self.refuse("--nonsense", "generate", "--nonsense")
        self.refuse("--nonsense", "evaluate", "--nonsense")
        self.refuse("required", "train")
        self.refuse("--prompt, --prompt-file: give one prompt", "generate")
        self.refuse("--tokens, --text, --tasks: give one thing to evaluate", "evaluate")
        self.refuse("--model, --preset: give one model", "generate", "--prompt", "a")

    def test_output_that_cannot_be_written_is_no_success(self):
        text = ("--text", self.data)
        for arguments in (("train", "--help"), ("generate", "--model", self.model, "--prompt", "a"),
                          ("generate", "--model", self.model, "--prompt", "a", "--depths"),
                          ("evaluate", "--model", self.model, *text),
                          ("evaluate", "--model", self.model, *text, "--json")):
            with open("/dev/full", "wb") as full:
                done = subprocess.run(command(*arguments), stdout=full, stderr=subprocess.PIPE, timeout=120,
                                      check=False)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(arguments[0].encode() + b": standard output: cannot write\n", done.stderr)

    def test_data(self):
        empty, short, folder = self.folder / "empty", self.folder / "short", self.folder / "folder"
        empty.write_bytes(b"")
        short.write_text("a few words")
        folder.mkdir()
        self.refuse_training("nowhere.txt: cannot open.*No such file", data=self.folder / "nowhere.txt")
        self.refuse_training("the file is empty", data=empty)
        self.refuse_training(r"shorter than one row.*expected at least 17 tokens, got 10", data=short)
        self.refuse_training("no shards", data=folder)
        shard = self.folder / "shard.bin"
        shard.write_bytes(struct.pack("<3i", 20240520, 1, 100) + bytes(2000))
        self.refuse_training("not a token shard: wrong file size.*expected 1224 bytes", data=shard)
        (self.folder / "bad.json").write_text("{]")
        self.refuse_training("bad.json", "--tokenizer", self.folder / "bad.json")

    def test_training_options(self):
        self.refuse_training("unknown preset.*tiny, quickstart.*huge", "--preset", "huge")
        self.refuse_training("heads do not divide.*expected a divisor of 16, got 3", "--heads", "3")
        self.refuse_training("num_key_value_heads.*expected a divisor of 4, got 3", "--heads", "4", "--kv-heads", "3")
        self.refuse_training(r"capacities\[1\]: capacities grow", "--capacities", "0.5,0.6,0.4")
        self.refuse_training("capacities: wrong number.*expected 3", "--capacities", "1,0.5")
        self.refuse_training("--router: unknown value.*expert_choice.*got .*nobody", "--router", "nobody")
        self.refuse_training("--steps: out of range", "--steps", "0")
        self.refuse_training("more than one length", "--steps", "5", "--minutes", "1")
        self.refuse_training("--total-batch.*a multiple of 2, got 3", "--total-batch", "3")
        self.refuse_training("unknown device.*auto, cpu, cuda.*got .*tpu", "--device", "tpu")
        self.refuse_training("--dtype.*expected float32, got bfloat16", "--dtype", "bfloat16")
        self.refuse_training("unknown element type.*float32 or bfloat16.*got .*int8", "--dtype", "int8")
        self.refuse_training("validation_fraction", "--validation-fraction", "1.5")
        self.refuse_training("unknown learning-rate schedule", "--schedule", "sometimes")
        self.refuse_training("--lr", "--lr", "fast")
        self.refuse_training("peak", "--lr", "-1")
        self.refuse_training("--vocab-size", "--vocab-size", "12")
        self.refuse_training("--sample-prompt: the prompt leaves no room.*less than 16 tokens, got 20",
                             "--sample-prompt", "a" * 20)
        most = str(2**63 - 1)
        for option in ("--steps", "--tokens", "--batch-size", "--total-batch", "--context"):
            self.refuse_training(f"{option}: out of range .expected at most [0-9]+, got {most}", option, most)
        self.refuse_training("--minutes: out of range .expected a positive number, at most", "--minutes", "1e300")
        self.refuse("no length of its own", "train", "--data", self.data, "--out", self.folder / "never", "--preset",
                    "small")

    def test_prompts(self):
        generate = ("generate", "--model", self.model)
        self.refuse("--prompt: byte 3: the prompt is not valid UTF-8", *generate, "--prompt", os.fsdecode(b"abc\xff"))
        self.refuse("--max-tokens: out of range", *generate, "--prompt", "a", "--max-tokens", "-1")
        bad = self.folder / "bad.txt"
        bad.write_bytes(b"abc\xffdef")
        self.refuse("bad.txt: byte 3: the prompt is not valid UTF-8", *generate, "--prompt-file", bad)
        self.refuse("standard input: byte 2: the prompt is not valid", *generate, "--prompt", "-", stdin=b"ab\xc3")
        self.refuse("give one prompt", *generate)
        self.refuse("longer than the model's context.*expected at most 16 tokens, got 40", *generate, "--prompt",
                    "a" * 40)
        self.refuse("temperature", *generate, "--prompt", "a", "--temperature", "-1")
        self.refuse("top_p", *generate, "--prompt", "a", "--top-p", "0")
        self.refuse("a stop string is empty", *generate, "--prompt", "a", "--stop", "")
        self.refuse("no auxiliary router", *generate, "--prompt", "a", "--routing", "aux_router")
        self.refuse("--color: unknown value", *generate, "--prompt", "a", "--color", "blue")
        self.refuse("--dtype.*expected float32, got bfloat16", *generate, "--prompt", "a", "--dtype", "bfloat16")
        self.refuse("--device: unknown device", *generate, "--prompt", "a", "--device", "")

    def test_damaged_models(self):
        def refuse(pattern, folder):
            self.refuse(pattern, "generate", "--model", folder, "--prompt", "a")

        refuse("nowhere: cannot open", self.folder / "nowhere")
        folder = self.copy("truncated")
        weights = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(weights[:-100])
        refuse("truncated/model.safetensors", folder)
        (folder / "model.safetensors").write_bytes(weights[:4])
        refuse("truncated/model.safetensors", folder)
        folder = self.copy("widened")
        config = json.loads((folder / "config.json").read_text())
        config["intermediate_size"] = 32
        (folder / "config.json").write_text(json.dumps(config))
        refuse(r'tensor "model.layers.0.mlp.gate_proj.weight": wrong shape \(expected .32, ?16., got .24, ?16.\)', folder)
        config["mor"]["rooter"] = 1
        (folder / "config.json").write_text(json.dumps(config))
        refuse("rooter", folder)
        folder = self.copy("wordless")
        (folder / "tokenizer.json").unlink()
        refuse("wordless/tokenizer.json: cannot open", folder)

    def test_tensors(self):
        header, data = self.tensors()

        def refuse(pattern, name, change):
            folder = self.copy(name)
            changed, contents = dict(header), bytearray(data)
            contents += change(changed, len(data)) or b""
            text = json.dumps(changed).encode()
            (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + contents)
            self.refuse(pattern, "generate", "--model", folder, "--prompt", "a")

        norm = header["model.norm.weight"]

        def add(name, content):
            def change(tensors, end):
                tensors[name] = {**norm, "data_offsets": [end, end + len(content)]}
                return content
            return change

        def rename(tensors, _):
            tensors["model.rorm.weight"] = tensors.pop("model.norm.weight")

        refuse('no such tensor.*model.rorm.weight', "renamed", rename)
        refuse('no such tensor.*got "surplus"', "surplus", add("surplus", bytes(64)))
        alias = "model.layers.2.block.0.input_layernorm.weight"
        refuse("some copies of a shared tensor are there and some are not", "partial", add(alias, bytes(64)))

    def tensors(self):
        raw = (self.model / "model.safetensors").read_bytes()
        length = struct.unpack("<Q", raw[:8])[0]
        return json.loads(raw[8:8 + length]), raw[8 + length:]

    def test_checkpoints(self):
        resume = ("train", "--resume", "--out")
        folder = self.copy("other-shape")
        self.refuse("has another model: .*intermediate_size is 24 there, 32 here", *resume, folder, "--ffn", "32")
        self.refuse("another seed", *resume, folder, "--seed", "9", "--steps", "4")
        self.refuse("other data or options", *resume, folder, "--validation-fraction", "0.5", "--steps", "4")
        folder = self.copy("torn")
        newest = max((folder / "checkpoints").iterdir())
        state = newest / "state.json"
        state.write_bytes(state.read_bytes()[:-20])
        self.refuse("state.json: a file of the checkpoint has the wrong size", *resume, folder, "--steps", "4")

    def test_token_files(self):
        tokens, output = self.folder / "tokens.txt", self.folder / "never.safetensors"
        for content, pattern in ((b"1 2 3\n\n4\n", "line 2: a sequence without tokens"),
                                 (b"1 2\n3 x 4\n", 'line 2: not a token id.*"x"'),
                                 (b"1 257\n", 'line 1: a token id outside.*expected 0 to 256, got "257"'),
                                 (b"1 -1\n", "line 1: a token id outside"),
                                 (b"", "no sequences"),
                                 (b"99999999999999999999\n", "line 1: a token id outside"),
                                 (b"1.5\n", "not a token id")):
            tokens.write_bytes(content)
            self.refuse(pattern, "evaluate", "--model", self.model, "--tokens", tokens, "--logits", output)
            self.assertFalse(output.exists())

    def test_evaluate_options(self):
        evaluate = ("evaluate", "--model", self.model)
        self.refuse("give one thing", *evaluate)
        self.refuse("belong together", *evaluate, "--tokens", self.data)
        self.refuse("--dtype.*expected float32, got bfloat16", *evaluate, "--text", self.data, "--dtype", "bfloat16")
        self.refuse("--dtype: unknown element type", *evaluate, "--text", self.data, "--dtype", "float64")
        self.refuse("--device: unknown device", *evaluate, "--text", self.data, "--device", "gpu")
        self.refuse("--routing: unknown value.*topk, threshold", *evaluate, "--text", self.data, "--routing", "best")
        self.refuse("cannot open", *evaluate, "--text", self.folder / "nowhere.txt")


if __name__ == "__main__":
    main()
