# SPDX-License-Identifier: Apache-2.0
"""Runs `convert`, `evaluate` and `generate` for comparisons, and looks at the files they write."""

import json
import os
import struct
import subprocess

import safetensors_file

WEIGHTS = "model.safetensors"


class Programs:
    """The programs, run in a scratch folder."""

    def __init__(self, convert, evaluate, generate, scratch):
        self.convert_path, self.evaluate_path, self.generate_path, self.scratch = convert, evaluate, generate, scratch
        self.count = 0

    def folder(self):
        self.count += 1
        return os.path.join(self.scratch, f"f{self.count}")

    def convert(self, source, *flags):
        """Converts into a new folder and returns it."""
        target = self.folder()
        done = subprocess.run([self.convert_path, "--from", source, "--to", target, *map(str, flags)],
                              capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"convert {flags}: {done.stderr}"
        return target

    def failed(self, pattern, source, *flags, status=1):
        """A conversion that must end with this status and one line that holds `pattern`; returns its target."""
        target = self.folder()
        done = subprocess.run([self.convert_path, "--from", source, "--to", target, *map(str, flags)],
                              capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == status, f"convert {flags}: {done}"
        assert pattern in done.stderr and done.stderr.count("\n") == 1, f"no {pattern!r} in {done.stderr!r}"
        return target

    def refused(self, pattern, source, *flags):
        """The same for bad input, of which nothing must be left."""
        assert not os.path.exists(self.failed(pattern, source, *flags, status=2)), f"convert {flags} left something"

    def devices(self, model):
        """Where `evaluate` can run this model: on the processor, and on a GPU where there is one."""
        done = self.run_evaluate(model, [[1]], "cuda", "topk")[0]
        return ("cpu", "cuda") if done.returncode == 0 else ("cpu",)

    def evaluate(self, model, sequences, routing="topk", device="cpu"):
        """Logits and depths of the sequences."""
        done, output = self.run_evaluate(model, sequences, device, routing)
        assert done.returncode == 0, f"evaluate {model}: {done.stderr}"
        return safetensors_file.read(output)

    def generate(self, model, prompt, count, device):
        """The greedy continuation, in float32, as bytes."""
        flags = ["--device", device, "--dtype", "float32", "--temperature", "0", "--max-tokens", str(count)]
        done = subprocess.run([self.generate_path, "--model", model, "--prompt", prompt, *flags], capture_output=True,
                              timeout=120, check=False)
        assert done.returncode == 0, f"generate {model}: {done.stderr}"
        return done.stdout[:-1]  # a line break ends the output

    def run_evaluate(self, model, sequences, device, routing):
        """The finished process, and the file that it was to write."""
        target = self.folder()
        os.makedirs(target)
        tokens = os.path.join(target, "tokens.txt")
        with open(tokens, "w", encoding="utf-8") as file:
            file.writelines(" ".join(map(str, tokens_of)) + "\n" for tokens_of in sequences)
        output = os.path.join(target, "out.safetensors")
        return subprocess.run([self.evaluate_path, "--device", device, "--model", model, "--tokens", tokens, "--logits",
                               output, "--routing", routing], capture_output=True, text=True, timeout=120,
                              check=False), output


def raw(path):
    """`{name: (type, shape, bytes)}` of a safetensors file."""
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    data = content[8 + length :]
    return {name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
            for name, entry in header.items() if name != "__metadata__"}


def copy_with(source, target, change):
    """The model folder `source` with its tensors changed by `change(tensors)`."""
    os.makedirs(target)
    tensors = safetensors_file.read(os.path.join(source, WEIGHTS))
    change(tensors)
    safetensors_file.write(os.path.join(target, WEIGHTS), tensors, "F32")
    with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
        text = file.read()
    with open(os.path.join(target, "config.json"), "w", encoding="utf-8") as file:
        file.write(text)
    return target
