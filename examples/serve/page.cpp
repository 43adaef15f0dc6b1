// SPDX-License-Identifier: Apache-2.0
#include "serve/page.hpp"

#include "mor/io/depth_html.hpp"
#include "mor/io/page_style.hpp"

#include <string_view>

namespace examples::serve {

namespace {

constexpr std::string_view html = R"html(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>How deep each token goes</title>
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/page.css">
<script src="/page.js" defer></script>
</head>
<body>
<main>
<h1>How deep each token goes</h1>
<p class="sub" id="model">Type a beginning; the model goes on, and each token shows how many recursions were spent on
predicting it.</p>
<noscript><p class="problem">This page needs JavaScript.</p></noscript>
<form class="card" id="form" autocomplete="off">
<label class="field" for="prompt">Prompt</label>
<textarea id="prompt" rows="4" spellcheck="false" autofocus></textarea>
<div class="knobs">
<label>tokens<input id="max_tokens" type="number" min="1" step="1" value="128"></label>
<label>temperature<input id="temperature" type="number" min="0" step="any" value="0.8"></label>
<label>top p<input id="top_p" type="number" min="0" max="1" step="any" placeholder="1"></label>
<label>seed<input id="seed" type="number" min="0" step="1" placeholder="random"></label>
<label>least depth<input id="min_depth" type="number" min="1" step="1" placeholder="1"></label>
<label>most depth<input id="max_depth" type="number" min="1" step="1" placeholder="all"></label>
<label>depth threshold<input id="depth_threshold" type="number" step="any" placeholder="model's"></label>
<label id="key_label" hidden>API key<input id="key" type="password" autocomplete="new-password"></label>
</div>
<div class="buttons">
<button type="submit" id="go">Generate</button>
<button type="button" id="stop" disabled>Stop</button>
<span class="hint">Ctrl + Enter</span>
</div>
</form>
<p class="problem" id="problem" role="alert" hidden></p>
<section id="result" hidden>
<p class="sub" id="summary" role="status"></p>
<div class="bar" id="bar" aria-hidden="true"></div>
<ul class="legend" id="legend"></ul>
<div class="text card" id="text"></div>
</section>
</main>
</body>
</html>
)html";

constexpr std::string_view css = R"css(
form{padding:18px 22px 20px;margin:0 0 22px}
.field{display:block;font-size:13px;color:var(--muted);margin:0 0 6px}
textarea,input{width:100%;border:1px solid var(--rule);border-radius:7px;background:var(--page);color:var(--ink);
font:inherit}
textarea{padding:10px 12px;resize:vertical;font-size:16px;line-height:1.5}
.knobs{display:grid;grid-template-columns:repeat(auto-fill,minmax(118px,1fr));gap:12px;margin:14px 0 16px}
.knobs label{font-size:13px;color:var(--muted)}
.knobs input{padding:6px 8px;margin-top:4px;display:block}
.buttons{display:flex;align-items:center;gap:10px}
button{font:inherit;font-weight:600;padding:8px 18px;border-radius:7px;border:1px solid var(--series-1);
background:var(--series-1);color:#fff;cursor:pointer}
@media(prefers-color-scheme:dark){button{color:#0b0e11}}
#stop{background:none;color:var(--ink);border-color:var(--rule)}
button:disabled{opacity:.45;cursor:default}
:is(button,input,textarea):focus-visible{outline:2px solid var(--series-1);outline-offset:2px}
.hint{color:var(--muted);font-size:13px}
.problem{color:var(--bad);margin:0 0 18px;overflow-wrap:anywhere}
#summary{margin-bottom:12px}
#bar:empty{visibility:hidden}
#bar i{flex:0 1 0}
#text{min-height:5em}
#text .p{box-shadow:none}
[hidden]{display:none!important}
)css";

constexpr std::string_view script = R"js('use strict';
const at = id => document.getElementById(id);
const numbers = ['max_tokens', 'temperature', 'top_p', 'seed', 'min_depth', 'max_depth', 'depth_threshold'];
let running = null;  // what stops the answer that is coming
let shown = null;    // what is on the page of it

function make(tag, parent, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function complain(message) {
  at('problem').textContent = message || '';
  at('problem').hidden = !message;
}

function begin(prompt) {
  shown = {counts: [], tokens: 0, sum: 0, held: [], start: performance.now(), last: 0, end: ''};
  for (const id of ['text', 'bar', 'legend']) at(id).replaceChildren();
  if (prompt) make('span', at('text'), 'p', prompt).title = 'prompt';
  at('result').hidden = false;
  summarize();
}

// Tokens that only together are a character come as empty texts and then the character: they share the deepest colour.
function show(text, depth) {
  const s = shown;
  s.tokens += 1;
  s.sum += depth;
  s.counts[depth] = (s.counts[depth] || 0) + 1;
  s.last = performance.now();
  s.held.push(depth);
  if (text === '') return;
  const lineBreak = /^[\r\n]+$/.test(text);
  const span = make('span', at('text'), 'd' + Math.max(...s.held) + (lineBreak ? ' n' : ''), text);
  const first = s.tokens - s.held.length + 1;
  span.title = s.held.length > 1 ? `tokens ${first} to ${s.tokens}, depths ${s.held.join(' ')}`
                                 : `token ${s.tokens}, depth ${depth}`;
  s.held = [];
}

function summarize() {
  const s = shown, bar = at('bar'), legend = at('legend');
  s.counts.forEach((count, depth) => {
    let part = bar.querySelector('.d' + depth), entry = legend.querySelector('.e' + depth);
    if (!part) {
      part = make('i', bar, 'd' + depth);
      entry = make('li', legend, 'e' + depth);
      make('i', entry, 'd' + depth);
      entry.append(`depth ${depth} \u2002`);
      make('b', entry);
      make('span', entry);
      for (const list of [bar, legend]) {
        [...list.children].sort((a, b) => a.className.slice(1) - b.className.slice(1)).forEach(c => list.append(c));
      }
    }
    part.style.flexGrow = count;
    entry.querySelector('b').textContent = count;
    entry.querySelector('span').textContent = ` \u2002${(100 * count / s.tokens).toFixed(1)}%`;
  });
  const seconds = (s.last - s.start) / 1000;
  const tokens = s.tokens === 1 ? '1 token' : `${s.tokens} tokens`;
  at('summary').textContent = s.tokens === 0 ? (s.end || 'waiting\u2026') :
      `${tokens}, mean depth ${(s.sum / s.tokens).toFixed(2)}, ${(s.tokens / Math.max(seconds, 1e-3)).toFixed(1)} ` +
      `tokens/s${s.end ? '; ' + s.end : ''}`;
}

const endings = {stop: 'ended by itself', length: 'as many tokens as asked for, or as fit'};

function take(data) {
  if (data === '[DONE]') return;
  const part = JSON.parse(data);
  if (part.error) throw new Error(part.error.message);
  const {tokens = [], depths = []} = part.mor || {};
  tokens.forEach((text, i) => show(text, depths[i]));
  for (const choice of part.choices) {
    if (choice.finish_reason) shown.end = `${endings[choice.finish_reason]}; seed ${part.mor.seed}`;
  }
}

async function ask(prompt, signal) {
  const body = {prompt, stream: true, clip_to_context: true};
  for (const id of numbers) {
    if (at(id).value !== '') body[id] = Number(at(id).value);
  }
  const headers = {'Content-Type': 'application/json'};
  if (at('key').value) headers.Authorization = 'Bearer ' + at('key').value;
  const response = await fetch('/v1/completions', {method: 'POST', headers, body: JSON.stringify(body), signal});
  if (!response.ok) {
    if (response.status === 401) at('key_label').hidden = false;
    throw new Error((await response.json()).error.message);
  }
  begin(prompt);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = '';;) {
    const {value, done} = await reader.read();
    if (done) break;
    const events = (rest + value).split('\n\n');
    rest = events.pop();
    events.filter(event => event.startsWith('data: ')).forEach(event => take(event.slice(6)));
    summarize();
  }
}

async function run() {
  if (running) return;
  running = new AbortController();
  shown = null;  // what comes now is not said of the answer before
  complain('');
  at('go').disabled = true;
  at('stop').disabled = false;
  try {
    await ask(at('prompt').value, running.signal);
  } catch (problem) {
    if (problem.name === 'AbortError') { if (shown) shown.end = 'stopped'; } else { complain(problem.message); }
  }
  if (shown) summarize();
  running = null;
  at('go').disabled = false;
  at('stop').disabled = true;
}

// Says which model this is, where a stranger may know.
async function introduce() {
  const response = await fetch('/v1/models');
  if (!response.ok) return;
  const model = (await response.json()).data[0];
  const {recursions, context} = model.mor, tokens = at('max_tokens');
  if (tokens.value === tokens.defaultValue) tokens.value = Math.min(tokens.value, Math.ceil(context / 2));
  at('model').textContent = `${model.id} has ${recursions} recursions and a context of ${context} tokens. ` +
      'Type a beginning; it goes on, and each token shows how many recursions were spent on predicting it.';
}

introduce();
at('form').addEventListener('submit', event => { event.preventDefault(); run(); });
at('stop').addEventListener('click', () => running && running.abort());
at('prompt').addEventListener('keydown', event => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); at('form').requestSubmit(); }
});
)js";

}  // namespace

std::string page_html() {
  return std::string(html);
}

std::string page_css(mor::Index recursions) {
  auto const most = static_cast<int>(recursions);
  std::string text(mor::io::detail::page_css);
  text += mor::io::detail::depth_css(most);
  text += mor::io::detail::depth_page_css;
  for (int depth = 0; depth <= most; ++depth) {
    std::string const number = std::to_string(depth);
    text += ".d" + number + "{--c:var(--depth-" + number + ");--t:var(--on-depth-" + number + ")}\n";
  }
  return text += css;
}

std::string page_script() {
  return std::string(script);
}

/// Three bars in the colours of three depths.
std::string page_icon() {
  std::string text = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 32 32\">";
  for (int depth = 1; depth <= 3; ++depth) {
    auto const colour = mor::io::css_colour(mor::io::depth_colour(depth, 3, mor::io::Theme::Light));
    text += "<rect x=\"" + std::to_string(10 * depth - 8) + "\" y=\"" + std::to_string(24 - 8 * depth + 4) +
            "\" width=\"8\" height=\"" + std::to_string(8 * depth) + "\" rx=\"2\" fill=\"" + colour + "\"/>";
  }
  return text + "</svg>\n";
}

}  // namespace examples::serve
