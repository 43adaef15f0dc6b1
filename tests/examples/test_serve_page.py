#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The server's page in a browser: text arrives token by token, in the colours of its depths, without complaints."""
import json
import sys
import unittest

from example_programs import SKIPPED
from headless_browser import Page, find_browser
from scripted_server import main, scripted


def contrast(one, other):
    """Of two colours as a browser computes them, "rgb(r, g, b)" (WCAG 2.1)."""
    def luminance(colour):
        parts = [int(part) / 255 for part in colour[4:-1].split(",")]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


class InBrowser(unittest.TestCase):
    def open(self, *arguments, dark=False):
        self.server = scripted("--tick-milliseconds", 20, *arguments)
        self.addCleanup(self.server.__exit__)
        self.page = Page(find_browser())
        self.addCleanup(self.page.close)
        self.page.open(f"http://127.0.0.1:{self.server.port}/", dark)

    def ask(self, prompt, tokens):
        self.page.run(f"at('prompt').value = {json.dumps(prompt)}; at('max_tokens').value = {tokens}; at('go').click()")

    def test_text_arrives_in_the_colours_of_its_depths(self):
        for dark in (False, True):
            self.open(dark=dark)
            self.page.until("at('model').textContent.startsWith('scripted has 3 recursions')")
            prompt = "<i>aé🙂</i>\n"
            self.ask(prompt, 3 * len(prompt.encode()))
            self.page.until("at('text').children.length > 3 && at('go').disabled")  # it comes bit by bit
            self.page.until("!at('go').disabled")
            self.assertEqual(self.page.run("at('text').textContent"), 4 * prompt)
            self.assertIn("45 tokens, mean depth 2.00", self.page.run("at('summary').textContent"))
            legend = self.page.run("[...at('legend').children].map(e => e.textContent.split(' ')[1])")
            self.assertEqual(legend, list("123"))
            spans = self.page.run("[...at('text').children].slice(1).map(e => [e.className, e.textContent, e.title, "
                                  "getComputedStyle(e).color, getComputedStyle(e).backgroundColor])")
            self.assertEqual(len({background for *_, background in spans}), 3)
            for name, text, title, colour, background in spans:
                self.assertRegex(name, "^d[123]( n)?$")
                self.assertEqual("depths" in title, text in "é🙂", title)
                self.assertGreater(contrast(colour, background), 4.5)
            self.assertEqual(self.page.complaints, [])

    def test_stop_frees_the_place(self):
        self.open()
        self.ask("abc", 4000)
        self.page.until("at('text').children.length > 9")
        self.page.run("at('stop').click()")
        self.page.until("!at('go').disabled && at('summary').textContent.endsWith('; stopped')")
        self.server.until("mor_generations_inside", 0)
        self.ask("abc", 5)
        self.page.until("!at('go').disabled && at('summary').textContent.startsWith('5 tokens')")

    def test_more_tokens_than_fit_are_clipped(self):
        self.open("--tick-milliseconds", 1)
        self.page.until("at('model').textContent.startsWith('scripted')")
        self.assertEqual(self.page.run("at('max_tokens').value"), "128")
        self.page.run("at('prompt').value = 'a'.repeat(4000); at('go').click()")
        self.page.until("!at('go').disabled && at('summary').textContent.includes('as fit')")
        self.assertTrue(self.page.run("at('summary').textContent").startswith("96 tokens"))
        self.ask("a" * 4095, 5000)
        self.page.until("!at('go').disabled && at('summary').textContent.startsWith('1 token,')")
        self.assertEqual(self.page.complaints, [])

    def test_a_small_context_is_not_asked_for_whole(self):
        self.open()
        self.page.until("at('model').textContent.startsWith('scripted')")
        models = {"data": [{"id": "small", "mor": {"recursions": 3, "context": 128}}]}
        self.page.run(f"fetch = async () => Response.json({json.dumps(models)})")
        for typed, wanted in (("128", "64"), ("100", "100"), ("64", "64"), ("", "")):
            self.page.run(f"at('model').textContent = ''; at('max_tokens').value = '{typed}'; introduce()")
            self.page.until("at('model').textContent.startsWith('small')")
            self.assertEqual(self.page.run("at('max_tokens').value"), wanted)

    def test_numbers_of_any_precision_are_sent(self):
        self.open()
        self.page.run("at('temperature').value = 0.75; at('top_p').value = 0.955; at('depth_threshold').value = -0.125")
        self.ask("abc", 5)
        self.page.until("!at('go').disabled && at('summary').textContent.startsWith('5 tokens')")

    def test_the_keyboard_asks_as_the_button_does(self):
        self.open()
        press = "at('prompt').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', ctrlKey: true}))"
        self.page.run("at('prompt').value = 'abc'; at('max_tokens').value = 1.5; " + press)
        self.assertEqual(self.page.run("[running, at('problem').hidden, document.activeElement.id]"),
                         [None, True, "max_tokens"])  # the browser says what is wrong, and where
        self.page.run("at('max_tokens').value = 5; " + press)
        self.page.until("!at('go').disabled && at('summary').textContent.startsWith('5 tokens')")

    def test_what_was_stopped_early_says_nothing_of_the_answer_before(self):
        self.open()
        self.ask("abc", 5)
        self.page.until("!at('go').disabled && at('summary').textContent.includes('as fit')")
        before = self.page.run("at('summary').textContent")
        self.page.run("at('go').click(); at('stop').click()")
        self.page.until("!at('go').disabled")
        self.assertEqual(self.page.run("at('summary').textContent"), before)

    def test_errors_are_told(self):
        self.open()
        self.ask("abc" * 1400, 5)
        self.page.until("at('problem').textContent.includes('do not fit the context') && !at('go').disabled")
        self.ask("abc", 5)
        self.page.until("at('problem').hidden && at('summary').textContent.startsWith('5 tokens')")

    def test_a_key_is_asked_for(self):
        self.open("--api-key", "secret")
        self.assertTrue(self.page.run("at('key_label').hidden"))
        self.ask("abc", 5)
        self.page.until("!at('key_label').hidden && at('problem').textContent.includes('API key')")
        self.page.run("at('key').value = 'secret'; at('go').click()")
        self.page.until("at('problem').hidden && at('summary').textContent.startsWith('5 tokens')")


if __name__ == "__main__":
    if not find_browser():
        print("there is no Chromium here")
        sys.exit(SKIPPED)
    main()
