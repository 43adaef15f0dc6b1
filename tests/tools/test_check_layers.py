#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tools/check_layers.py accepts a tree that keeps the rules and names file and line of each breach."""
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(os.environ.get("MOR_SOURCE_DIR", Path(__file__).resolve().parent.parent.parent))
LAYERS = "core:\nmath: core  # comment\nbackend/host: core math\nbackend/cuda: core\n"


class CheckLayers(unittest.TestCase):
    def check(self, files, layers=LAYERS):
        """Status and output of the checker for a project made of these files, relative to include/mor."""
        files = {"core/a.hpp": "", "math/b.hpp": "", **files}
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                path = Path(folder, "include/mor", name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            Path(folder, "tools").mkdir()
            Path(folder, "tools/layers.txt").write_text(layers)
            script = ROOT / "tools" / "check_layers.py"
            result = subprocess.run([sys.executable, script, folder], capture_output=True, text=True)
            return result.returncode, result.stdout + result.stderr

    def assert_refused(self, expected, files, layers=LAYERS):
        status, output = self.check(files, layers)
        self.assertEqual(status, 1, output)
        self.assertIn(expected, output)

    def test_allowed_includes_pass(self):
        files = {"math/c.hpp": '#include "mor/core/a.hpp"\n#include "mor/math/b.hpp"\n#include <vector>\n',
                 "backend/host/detail/d.hpp": '#include "mor/math/b.hpp"\n', "mor.hpp": '#include "mor/math/b.hpp"\n'}
        self.assertEqual(self.check(files)[0], 0, self.check(files)[1])

    def test_forbidden_edge_is_named_with_file_and_line(self):
        self.assert_refused("include/mor/core/c.hpp:2: forbidden edge core -> math",
                            {"core/c.hpp": '#include <vector>\n#include "mor/math/b.hpp"\n'})

    def test_edges_do_not_chain(self):
        self.assert_refused("forbidden edge backend/cuda -> math", {"backend/cuda/c.cuh": '#include "mor/math/b.hpp"\n'})

    def test_plain_header_must_not_include_cuda_header(self):
        self.assert_refused("include/mor/core/c.hpp:1: a .hpp must not include",
                            {"core/x.cuh": "", "core/c.hpp": '#include "mor/core/x.cuh"\n'})

    def test_umbrella_is_not_included_by_a_layer(self):
        self.assert_refused("umbrella", {"mor.hpp": "", "core/c.hpp": '#include "mor/mor.hpp"\n'})

    def test_includes_are_written_in_full_and_with_quotes(self):
        for line in ('#include "a.hpp"', "#include <mor/core/a.hpp>", '# include "../core/a.hpp"'):
            self.assert_refused("core/c.hpp:1: write #include", {"core/c.hpp": line + "\n"})

    def test_missing_file_and_unknown_folder_are_refused(self):
        self.assert_refused("mor/core/none.hpp does not exist", {"core/c.hpp": '#include "mor/core/none.hpp"\n'})
        self.assert_refused("extra has no line in", {"extra/c.hpp": '#include "mor/core/a.hpp"\n'})

    def test_a_cycle_between_layers_is_refused(self):
        self.assert_refused("cycle: core -> math -> core", {}, "core: math\nmath: core\n")

    def test_a_long_file_is_only_a_warning(self):
        status, output = self.check({"core/long.hpp": "\n" * 401})
        self.assertEqual(status, 0, output)
        self.assertIn("core/long.hpp:401: warning", output)


if __name__ == "__main__":
    unittest.main()
