// SPDX-License-Identifier: Apache-2.0
/// @file
/// The style and the script of the training report: how its charts look, and what they show under the pointer.
#pragma once

#include <string_view>

namespace mor::io::detail {

inline constexpr std::string_view report_css = R"css(
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(190px,1fr));overflow:hidden;margin:0 0 16px}
.facts div{padding:12px 16px;box-shadow:1px 1px 0 var(--rule)}
.facts dt{color:var(--muted);font-size:12.5px}
.facts dd{margin:2px 0 0;font-size:21px;font-weight:600;letter-spacing:-.01em}
.facts small{display:block;font-size:12.5px;font-weight:400;color:var(--muted);letter-spacing:0}
.notice{border:1px solid var(--bad);border-radius:10px;padding:10px 16px;margin:0 0 16px;color:var(--bad);
background:var(--card)}
.notice p{margin:0}
.charts{display:grid;grid-template-columns:1fr 1fr;gap:16px}
.chart{position:relative;margin:0;padding:14px 16px 8px;background:var(--card);border:1px solid var(--rule);
border-radius:10px;
min-width:0}
.wide{grid-column:1/-1}
@media(max-width:820px){.charts{grid-template-columns:1fr}main{padding:20px 12px}
.wide svg text{font-size:17px!important}
.wide>.plot{overflow:auto hidden}.wide>.plot>svg{min-width:700px;touch-action:pan-x pan-y!important}}
figcaption{display:flex;flex-wrap:wrap;gap:4px 18px;justify-content:space-between;align-items:baseline;
margin-bottom:6px}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;list-style:none;margin:0;padding:0;font-size:12.5px;color:var(--muted)}
.key{display:inline-block;width:16px;height:3px;border-radius:2px;background:var(--c);margin-right:6px;
vertical-align:middle}
.key.faint{opacity:.45}
.key.block{width:11px;height:11px;border-radius:3px;border:1px solid var(--rule)}
.plot>svg{display:block;width:100%;height:auto;overflow:visible;touch-action:pan-y}
svg text{font-size:11.5px;fill:var(--muted)}
svg .x{text-anchor:middle}
svg .y{text-anchor:end}
.grid line{stroke:var(--grid)}
.axis{stroke:var(--muted);stroke-opacity:.55}
.line{fill:none;stroke:var(--c);stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
.line.faint{stroke-width:1;stroke-opacity:.38}
circle{fill:var(--c);stroke:var(--card);stroke-width:1}
.area{fill:var(--c);stroke:var(--card);stroke-width:.75}
path.bad{fill:var(--bad)}
line.bad{stroke:var(--bad);stroke-dasharray:2 3;stroke-opacity:.7}
.beyond{fill:var(--series-1)}
.cross{stroke:var(--ink);stroke-opacity:.4}
.tip{position:absolute;top:0;left:0;pointer-events:none;background:var(--card);border:1px solid var(--rule);
border-radius:8px;
box-shadow:0 4px 16px rgb(0 0 0/.14);padding:6px 10px;font-size:12.5px;white-space:nowrap;z-index:1}
.tip b{display:block;font-weight:600}
.tip span{display:flex;gap:6px;align-items:center}
.tip em{margin-left:auto;padding-left:14px;font-style:normal;font-weight:600}
.tip .key{margin:0}
@media(max-width:480px){.plot>svg text{font-size:15px}}
@media print{.chart{break-inside:avoid}}
)css";

/// Under the pointer: a line at the nearest step and every series' value there. Without scripts the picture is the
/// same, and single points and marks still say their value.
inline constexpr std::string_view report_script = R"js(<script>
for (const figure of document.querySelectorAll('figure.chart')) {
  const svg = figure.querySelector('svg'), tip = figure.querySelector('.tip'), cross = figure.querySelector('.cross');
  const data = JSON.parse(figure.querySelector('script').textContent);
  const nearest = (xs, x) => {
    let low = 0, high = xs.length - 1;
    while (high - low > 1) { const middle = (low + high) >> 1; if (xs[middle] < x) low = middle; else high = middle; }
    return x - xs[low] < xs[high] - x ? low : high;
  };
  const text = value => typeof value === 'string' ? value : data.share ? (100 * value).toFixed(1) + '%' :
    Math.abs(value) >= 10000 ? Math.round(value).toLocaleString('en') : String(+value.toPrecision(5));
  const hide = () => { tip.hidden = true; cross.setAttribute('visibility', 'hidden'); };
  const show = event => {
    const box = svg.getBoundingClientRect(), outer = figure.getBoundingClientRect(), scale = data.width / box.width;
    const at = (event.clientX - box.left) * scale;
    if (at < data.left - 6 || at > data.right + 6) return hide();
    const x = data.x0 + (at - data.left) / (data.right - data.left) * (data.x1 - data.x0);
    let best = null;
    for (const s of data.series) {
      if (!s.x.length) continue;
      const i = nearest(s.x, x);
      if (best === null || Math.abs(s.x[i] - x) < Math.abs(best - x)) best = s.x[i];
    }
    if (best === null) return hide();
    const place = data.left + (best - data.x0) / (data.x1 - data.x0) * (data.right - data.left);
    const reach = (data.x1 - data.x0) / 60, rows = document.createElement('div');
    rows.appendChild(document.createElement('b')).textContent = 'step ' + best.toLocaleString('en');
    for (const s of data.share ? [...data.series].reverse() : data.series) {
      const i = s.x.length ? nearest(s.x, best) : -1;
      if (i < 0 || Math.abs(s.x[i] - best) > reach) continue;
      const row = rows.appendChild(document.createElement('span')), key = row.appendChild(document.createElement('i'));
      key.className = data.share ? 'key block' : 'key';
      key.style.setProperty('--c', 'var(' + s.colour + ')');
      row.appendChild(document.createElement('span')).textContent = s.name;
      row.appendChild(document.createElement('em')).textContent = text(s.y[i]);
    }
    tip.replaceChildren(...rows.childNodes);
    tip.hidden = false;
    cross.setAttribute('x1', place); cross.setAttribute('x2', place); cross.setAttribute('visibility', 'visible');
    const left = box.left - outer.left + place / scale, width = tip.offsetWidth;
    tip.style.left = (left + 14 + width > outer.width - 8 ? left - 14 - width : left + 14) + 'px';
    tip.style.top = (box.top - outer.top + 8) + 'px';
  };
  svg.addEventListener('pointermove', show);
  svg.addEventListener('pointerdown', show);
  svg.addEventListener('pointerleave', hide);
}
</script>
)js";

}  // namespace mor::io::detail
