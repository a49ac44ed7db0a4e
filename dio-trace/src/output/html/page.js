// What comes from outside reaches the page as text alone: el() and svg() make text nodes.
const data = JSON.parse(document.getElementById("data").textContent);
const report = data.report, summary = report.summary, times = data.times;
const body = document.body;

// ---- making elements

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}
function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}
function svg(tag, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

// ---- numbers

// Those of format.js, and times in the zone that the report is in.
const east = data.zone.offset;
const clock = (ns, fine) => clockAt(ns, east, fine);
const several = dayAt(report.began, east) !== dayAt(report.began + report.lasted_ns, east);
// With its day, where the recording has several.
const moment = (ns, fine) => (several ? dayAt(ns, east) + " " : "") + clock(ns, fine);
const sum = numbers => numbers.reduce((a, b) => a + b, 0);
function percentile(buckets, share) {
  const rank = Math.ceil(sum(buckets) * share / 100);
  let below = 0;
  for (let i = 0; i < buckets.length; i++) {
    below += buckets[i];
    if (rank > 0 && below >= rank) return i + 1;
  }
  return null;
}

// ---- small pieces

const dot = verdict => el("span", { class: "dot v-" + verdict, "aria-hidden": "true" });
const chip = (verdict, outcome) => el("span", { class: "chip" }, dot(verdict),
  verdict + (outcome && outcome !== "full" ? " " + outcome : ""));
const who = row => row.comm + "/" + row.pid;

// Sections in the order in which they are made; the contents list has those that are shown.
const section = (title, about, ...children) =>
  el("section", { id: title.toLowerCase().replace(/[^a-z]+/g, "-"), "data-title": title },
    el("h2", {}, title), about && el("p", { class: "soft" }, about), ...children);
function contents(main) {
  const links = [...main.querySelectorAll("section[data-title]")].map(part =>
    el("li", {}, el("a", { href: "#" + part.id }, part.dataset.title)));
  return el("nav", { "aria-label": "Contents" }, el("ul", {}, links));
}

// A remedy: each command in it can be copied by its own button.
function remedy(text) {
  return text.split("`").map((part, at) => {
    if (at % 2 === 0) return part;
    const button = el("button", { type: "button", class: "copy", "aria-label": "Copy " + part }, "copy");
    button.addEventListener("click", () => copy(part, button));
    return [el("code", {}, part), button];
  });
}
function copy(text, button) {
  const done = () => { button.textContent = "copied"; };
  // Without permission the command is selected, for the keyboard.
  const select = () => getSelection().selectAllChildren(button.previousSibling);
  if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, select);
  else select();
}

function share(bytes) {
  const moved = bytes.direct + bytes.cached;
  if (!moved) return "-";
  const part = bytes.direct / moved;
  const bar = svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", height: 8 },
    svg("rect", { width: part * 100, height: 10, class: "v-direct" }));
  return el("span", {}, el("span", { class: "share", "aria-hidden": "true" }, bar),
    percent(bytes.direct, moved));
}

// ---- tables: sorted by their headings, filtered by the box, opened by their first column

const tables = [];
// Rows of a longer table that are shown before "Show all" or a filter.
const FOLD = 20;

function table({ id, caption, columns, rows, sort, more, leftOut }) {
  const head = columns.map((column, at) => {
    const name = column.about ? el("button", { type: "button", title: column.about }, column.title)
      : el("button", { type: "button" }, column.title);
    name.addEventListener("click", () => order(at));
    return el("th", { scope: "col", class: column.number ? "num" : null }, name);
  });
  const units = rows.map(row => unit(row, columns, more));
  const tbody = el("tbody", {}, units.map(u => u.rows));
  const none = el("p", { class: "soft" }, "No row has all of these words.");
  none.hidden = true;
  let by = null, down = false, words = [], folded = rows.length > FOLD;
  const unfold = el("button", { type: "button", class: "unfold" }, "Show all " + count(rows.length) + " rows");
  unfold.addEventListener("click", () => { folded = false; show(); });

  function order(at, first) {
    down = by === at ? !down : Boolean(columns[at].number);
    by = at;
    const key = columns[at].key;
    units.sort((a, b) => {
      const [x, y] = [key(a.row), key(b.row)];
      const less = typeof x === "number" ? x - y : String(x).localeCompare(String(y));
      return down ? -less : less;
    });
    tbody.append(...units.flatMap(u => u.rows));
    show();
    head.forEach((th, i) => i === at
      ? th.setAttribute("aria-sort", down ? "descending" : "ascending")
      : th.removeAttribute("aria-sort"));
  }
  // A filter finds rows that are folded away too.
  function show() {
    let fitting = 0;
    for (const u of units) {
      const fits = words.every(word => u.text.includes(word));
      const shown = fits && (!folded || words.length > 0 || fitting < FOLD);
      u.rows[0].hidden = !shown;
      if (u.rows[1]) u.rows[1].hidden = !shown || !u.isOpen();
      fitting += fits;
    }
    none.hidden = fitting > 0;
    unfold.hidden = !folded || words.length > 0;
    return fitting;
  }
  function filter(wanted) {
    words = wanted;
    return show();
  }
  show();
  if (sort !== undefined) order(sort);
  tables.push({ filter, size: units.length });
  const rest = leftOut ? el("p", { class: "soft" }, count(leftOut) + " more rows are not in this page.")
    : null;
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", { id }, el("caption", {}, caption), el("thead", {}, el("tr", {}, head)), tbody),
    none, unfold, rest);
}

function unit(row, columns, more) {
  let details = null, opener = null;
  const cells = columns.map((column, at) => {
    let content = column.show ? column.show(row) : column.key(row);
    if (typeof content === "number") content = count(content);
    if (at === 0 && more) {
      opener = el("button", { type: "button", class: "open", "aria-expanded": "false" }, content);
      opener.addEventListener("click", toggle);
      content = opener;
    }
    return el("td", { class: column.number ? "num" : column.name ? "name mono" : column.code ? "code mono"
      : column.wide ? "wide" : "words" }, content);
  });
  const line = el("tr", { class: "row" }, cells);
  const rows = [line];
  if (more) {
    details = el("tr", { class: "more" }, el("td", { colspan: columns.length }));
    details.hidden = true;
    rows.push(details);
  }
  const isOpen = () => opener !== null && opener.getAttribute("aria-expanded") === "true";
  function toggle() {
    const open = !isOpen();
    opener.setAttribute("aria-expanded", String(open));
    if (open && !details.firstChild.hasChildNodes()) fill(details.firstChild, {}, [more(row)]);
    details.hidden = !open;
  }
  const words = columns.map(column => column.text ? column.text(row) : column.key(row));
  return { row, rows, isOpen, text: words.join(" ").toLowerCase() };
}

// ---- heading

function heading() {
  const header = report.header;
  const scope = header.scope === "system" ? "the whole system"
    : header.scope.processes ? "process " + header.scope.processes.join(", ")
    : "`" + header.scope.command.join(" ") + "`";
  const what = header.all ? "every request recorded"
    : header.sample ? "findings and 1 in " + header.sample + " of the rest recorded"
    : "findings recorded, the rest counted";
  const line = header.host + ", " + data.when + " of " + scope + "; kernel " + summary.kernel + "; " + what;
  const button = el("button", { type: "button", class: "theme", id: "theme" });
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme
    || (system.matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? "☀ Light" : "☾ Dark"; };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  system.addEventListener("change", name);
  name();
  return el("header", {},
    el("div", {}, el("h1", {}, "Was it really direct? ", el("span", { class: "mono" }, report.file)),
      el("p", { id: "answer" }, summary.answer),
      el("div", { class: "soft" }, line),
      el("div", { class: "soft" }, "Times: " + data.zone.text),
      summary.findings ? el("p", { id: "headline" }, data.headline) : null,
      report.only ? el("div", { class: "warn" }, "Only " + report.only) : null), button);
}

function notes() {
  const out = [];
  for (const [at, length, what] of report.damage) {
    out.push(count(length) + " bytes at offset " + count(at) + " of the recording left out: " + what);
  }
  if (report.ended === null) {
    out.push("The recording has no end: it was killed, or copied while it ran. Up to its last second "
      + "may be missing.");
  } else if (report.ended !== "done") out.push("It ended because " + report.ended + ".");
  if (report.left_out) {
    out.push("Left out, " + report.left_out + ".");
  }
  if (report.dropped) {
    out.push(count(report.dropped) + " requests were counted but not recorded: the disk was too slow.");
  }
  if (report.by_requests && !report.header.all) {
    out.push("The counts are of the requests recorded one by one; of those without a finding "
      + (report.header.sample ? "1 in " + count(report.header.sample) + " is" : "none are") + " among them.");
  }
  return out.length ? el("section", {}, el("h2", { class: "warn" }, "Not whole"),
    el("ul", {}, out.map(text => el("li", {}, text)))) : null;
}

// ---- cards

function cards() {
  const ended = sum(Object.values(summary.requests));
  const moved = summary.bytes.direct + summary.bytes.cached;
  const lost = sum(Object.values(summary.lost));
  const cached = summary.requests.fallback + summary.requests.partial;
  const card = (value, label, state) =>
    el("div", { class: "card" + (state ? " " + state : "") }, el("b", {}, value), label);
  const order = [...data.verdict_names].sort((a, b) => summary.requests[b] - summary.requests[a]);
  let x = 0;
  const rects = order.filter(name => summary.requests[name]).map(name => {
    const width = summary.requests[name] * 1000 / ended;
    x += width;
    return svg("rect", { x: x - width, width: Math.max(width, 1), height: 10, class: "v-" + name });
  });
  return [
    el("div", { class: "cards" },
      card(count(ended), "requests ended"),
      card(percent(summary.bytes.direct, moved), "of " + bytes(moved) + " went past the page cache",
        summary.bytes.cached ? "" : "good"),
      card(count(summary.findings), "requests have a finding", summary.findings ? "bad" : "good"),
      card(count(cached), "fell back to the page cache", cached ? "bad" : "good"),
      card(count(data.short), "short counts"),
      card(count(summary.requests.refused), "requests refused"),
      card(count(data.refused_opens), "opens with O_DIRECT refused"),
      card(lost ? count(lost) : "none", "requests or events lost", lost ? "bad" : "good")),
    el("div", { class: "bar", role: "img", "aria-label": "requests by verdict: "
      + order.filter(n => summary.requests[n]).map(n => n + " " + count(summary.requests[n])).join(", ") },
      svg("svg", { viewBox: "0 0 1000 10", preserveAspectRatio: "none", height: 15 }, rects))];
}

// ---- charts over time

const LEFT = 56, RIGHT = 8;

// Draws now, and again when the width changes.
function chart(draw) {
  const holder = el("div", {});
  let width = 0;
  const again = () => {
    const now = holder.clientWidth;
    if (now > 0 && now !== width) {
      width = now;
      holder.replaceChildren(draw(now));
    }
  };
  new ResizeObserver(() => requestAnimationFrame(again)).observe(holder);
  return { holder, redraw: () => { width = 0; again(); } };
}

function timeAxis(width, y, node) {
  const span = times.slices.length * times.width, ticks = Math.max(2, Math.floor(width / 170));
  for (let i = 0; i <= ticks; i++) {
    const x = LEFT + (width - LEFT - RIGHT) * i / ticks;
    const anchor = i === 0 ? "start" : i === ticks ? "end" : "middle";
    node.append(svg("text", { x, y, "text-anchor": anchor },
      moment(times.start + span * i / ticks, span < 2e10)));
  }
}

function follow(node, width, bottom, say) {
  const cursor = svg("line", { class: "cursor", y1: 0, y2: bottom });
  node.append(cursor);
  const n = times.slices.length, step = (width - LEFT - RIGHT) / n;
  node.addEventListener("pointermove", event => {
    const box = node.getBoundingClientRect();
    const at = Math.min(n - 1, Math.max(0, Math.floor((event.clientX - box.left - LEFT) / step)));
    const x = LEFT + (at + .5) * step;
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.style.visibility = "visible";
    say(at, event.clientY - box.top);
  });
  node.addEventListener("pointerleave", () => { cursor.style.visibility = "hidden"; });
}

const when = at => moment(times.start + at * times.width, times.width < 1e9);

function verdictsOverTime() {
  if (!times.slices.length) return null;
  const names = data.verdict_names.filter((_, i) => times.slices.some(s => s.verdicts[i]));
  const total = name => sum(times.slices.map(s => s.verdicts[data.verdict_names.indexOf(name)]));
  names.sort((a, b) => total(b) - total(a));
  const hidden = new Set();
  const readout = el("p", { class: "readout" }, "Point at the chart to read a slice.");
  const { holder, redraw } = chart(width => {
    const high = 180, low = 46, n = times.slices.length, step = (width - LEFT - RIGHT) / n;
    const shown = names.filter(name => !hidden.has(name));
    const of = (slice, name) => slice.verdicts[data.verdict_names.indexOf(name)];
    const top = Math.max(1, ...times.slices.map(s => sum(shown.map(name => of(s, name)))));
    const most = Math.max(1, ...times.slices.map(s => s.findings));
    const bottom = high + 14 + low;
    const node = svg("svg", { width, height: bottom + 20, role: "img",
      "aria-label": "requests by verdict over time, findings below; the table under it has the numbers" });
    for (const part of [0, .5, 1]) {
      const y = 4 + (high - 4) * (1 - part);
      node.append(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }),
        svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, count(Math.round(top * part))));
    }
    times.slices.forEach((slice, at) => {
      let y = high;
      for (const name of shown) {
        const height = of(slice, name) * (high - 4) / top;
        y -= height;
        if (height > 0) node.append(svg("rect", { x: LEFT + at * step, y, height,
          width: Math.max(.5, step - (step > 4 ? 1 : 0)), class: "v-" + name }));
      }
      const height = slice.findings * low / most;
      if (height > 0) node.append(svg("rect", { class: "finds", x: LEFT + at * step,
        y: bottom - Math.max(1, height), height: Math.max(1, height),
        width: Math.max(.5, step - (step > 4 ? 1 : 0)) }));
    });
    node.append(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: bottom, y2: bottom }),
      svg("text", { x: LEFT - 6, y: high + 26, "text-anchor": "end" }, count(most)),
      svg("text", { x: LEFT - 6, y: bottom, "text-anchor": "end" }, "findings"));
    timeAxis(width, bottom + 15, node);
    follow(node, width, bottom, at => {
      const slice = times.slices[at];
      const parts = names.filter(name => of(slice, name)).map(name => name + " " + count(of(slice, name)));
      readout.textContent = when(at) + ": " + count(slice.requests) + " requests, "
        + count(slice.findings) + " findings" + (parts.length ? " (" + parts.join(", ") + ")" : "");
    });
    return node;
  });
  const legend = el("div", { class: "legend", role: "group", "aria-label": "verdicts shown" },
    names.map(name => {
      const button = el("button", { type: "button", "aria-pressed": "true" }, dot(name),
        name + " " + count(total(name)));
      button.addEventListener("click", () => {
        const off = !hidden.delete(name);
        if (off) hidden.add(name);
        button.setAttribute("aria-pressed", String(!off));
        redraw();
      });
      return button;
    }));
  const numbers = later("As a table", () => el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, ["from", "requests", "findings", ...names]
      .map(name => el("th", { scope: "col", class: name === "from" ? null : "num" },
        el("span", {}, name))))),
    el("tbody", {}, times.slices.map((slice, at) => slice.requests ? el("tr", {},
      el("td", {}, when(at)), [slice.requests, slice.findings,
        ...names.map(name => slice.verdicts[data.verdict_names.indexOf(name)])]
        .map(n => el("td", { class: "num" }, count(n)))) : null)))));
  return section("Verdicts over time", "Requests that ended, " + duration(times.width)
    + " a slice; a verdict's button hides it. Below, in red: findings, by their own scale.",
    legend, holder, readout, numbers);
}

// Content that is made when it is first opened.
function later(title, make) {
  const details = el("details", {}, el("summary", {}, title));
  details.addEventListener("toggle", () => {
    if (details.open && details.childNodes.length === 1) details.append(make());
  });
  return details;
}

function heatMap() {
  if (!times.slices.length) return null;
  const buckets = times.slices[0].latency.map((_, i) => sum(times.slices.map(s => s.latency[i])));
  const low = buckets.findIndex(n => n), high = buckets.findLastIndex(n => n);
  if (low < 0) return null;
  const readout = el("p", { class: "readout" }, "Point at the map to read a cell.");
  const most = Math.max(...times.slices.flatMap(s => s.latency));
  const { holder } = chart(width => {
    const rows = high - low + 1, row = Math.max(14, Math.min(26, 240 / rows)), bottom = rows * row + 4;
    const n = times.slices.length, step = (width - LEFT - RIGHT) / n;
    const yOf = power => 4 + (high + 1 - power) * row;
    const node = svg("svg", { width, height: bottom + 20, role: "img", "aria-label":
      "heat map of latency over time: cells of a stronger colour have more requests" });
    for (let power = low; power <= high + 1; power++) {
      if ((power - low) % Math.ceil(rows / 9) === 0) {
        node.append(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: yOf(power), y2: yOf(power) }),
          svg("text", { x: LEFT - 6, y: yOf(power) + 4, "text-anchor": "end" }, duration(2 ** power)));
      }
    }
    times.slices.forEach((slice, at) => slice.latency.forEach((n, power) => {
      if (n) node.append(svg("rect", { class: "heat", x: LEFT + at * step, y: yOf(power + 1),
        width: step + .3, height: row, "fill-opacity":
          (.1 + .9 * Math.log(n + 1) / Math.log(most + 1)).toFixed(3) }));
    }));
    for (const [share, name] of [[50, "p50"], [99, "p99"]]) {
      let path = "";
      times.slices.forEach((slice, at) => {
        const power = percentile(slice.latency, share);
        if (power === null) return;
        const x = LEFT + at * step, y = yOf(power);
        path += (path && at && times.slices[at - 1].requests ? "L" : "M") + x.toFixed(1) + " " + y
          + "H" + (x + step).toFixed(1);
      });
      node.append(svg("path", { class: name, d: path }));
    }
    timeAxis(width, bottom + 15, node);
    follow(node, width, bottom, (at, y) => {
      const power = high - Math.floor((y - 4) / row);
      if (power < low || power > high) return;
      const [p50, p99] = [50, 99].map(share => percentile(times.slices[at].latency, share));
      readout.textContent = when(at) + ", " + duration(2 ** power) + " to " + duration(2 ** (power + 1)) + ": "
        + count(times.slices[at].latency[power]) + " of " + count(times.slices[at].requests) + " requests"
        + (p50 === null ? "" : "; half took less than " + duration(2 ** p50) + ", 99% less than "
          + duration(2 ** p99));
    });
    return node;
  });
  const legend = el("div", { class: "legend" },
    [["p50", "direct", "half took less"], ["p99", "fallback", "99% took less"]].map(([, colour, text]) =>
      el("span", {}, el("span", { class: "stroke v-" + colour, "aria-hidden": "true" }), text)));
  return section("Latency over time",
    "Requests by time and by power of two of their latency; the stronger the colour, the more of them.",
    legend, holder, readout);
}

// ---- tables of this recording

function byVerdict() {
  const used = data.verdicts.flatMap(row => row.latency.map((n, i) => n ? i : -1)).filter(i => i >= 0);
  const low = Math.min(...used), high = Math.max(...used);
  const shape = row => {
    const most = Math.max(...row.latency), n = high - low + 1;
    const bars = row.latency.slice(low, high + 1).map((requests, i) => requests ? svg("rect", {
      x: i * 10, width: 9, class: "v-" + row.verdict, height: Math.max(2, requests * 24 / most),
      y: 24 - Math.max(2, requests * 24 / most) }) : null);
    return el("span", { role: "img", "aria-label": "latency from " + duration(2 ** low) + " to "
      + duration(2 ** (high + 1)) }, svg("svg", { viewBox: "0 0 " + n * 10 + " 24", height: 22,
      preserveAspectRatio: "none" }, bars));
  };
  const at = (i, title) => ({ title, number: true, key: row => row.percentiles[i],
    show: row => duration(row.percentiles[i]), about: "upper bound of its power of two" });
  return section("Latency by verdict", null, table({
    id: "verdicts", caption: "Percentiles are upper bounds of a power of two; the shape is of all requests",
    rows: data.verdicts, sort: 1,
    columns: [
      { title: "Verdict", key: row => row.verdict, show: row => chip(row.verdict) },
      { title: "Requests", number: true, key: row => row.requests },
      { title: "Findings", number: true, key: row => row.findings },
      { title: "Mean", number: true, key: row => row.latency_mean_ns, show: row => duration(row.latency_mean_ns) },
      at(0, "p50"), at(1, "p90"), at(2, "p99"), at(3, "Max"),
      { title: "Shape", key: row => row.percentiles[0], show: shape, text: () => "" },
    ] }));
}

function pairs(list) {
  return el("dl", {}, list.filter(([, value]) => value).map(([name, value, kind]) =>
    [el("dt", {}, name), el("dd", { class: kind }, kind === "fix" ? remedy(value) : value)]));
}

function topOf(rows, name) {
  const sums = new Map();
  for (const row of rows) sums.set(name(row), (sums.get(name(row)) || 0) + row.requests);
  const top = [...sums].sort((a, b) => b[1] - a[1]);
  const items = top.slice(0, 5).map(([text, n]) => el("li", {}, el("span", { class: "mono" }, text),
    " " + count(n)));
  return el("ul", {}, items, top.length > 5 ? el("li", { class: "soft" }, (top.length - 5) + " more") : null);
}

function causes() {
  if (!data.causes.length) {
    return section("Causes and what to do", summary.findings ? null : "No request has a finding.");
  }
  const all = sum(data.causes.map(row => row.requests));
  return section("Causes and what to do", null, table({
    id: "causes", caption: "Open a cause for its files, its processes and its remedy",
    rows: data.causes, sort: 1,
    columns: [
      { title: "Cause", key: row => row.id, code: true },
      { title: "Findings", number: true, key: row => row.requests },
      { title: "Share", number: true, key: row => row.requests / all, show: row => percent(row.requests, all), text: () => "" },
      { title: "Bytes", number: true, key: row => row.bytes, show: row => bytes(row.bytes), text: () => "" },
      { title: "In short", key: row => row.title, wide: true },
    ],
    more: row => {
      const rows = data.findings.rows.filter(found => found.cause === row.id);
      return [pairs([
        ["here", rows[0] && rows[0].why], ["fix", row.fix, "fix"], ["means", row.means], ["proof", row.proof],
        ["files", topOf(rows, found => found.path)], ["processes", topOf(rows, who)]])];
    } }));
}

// The first columns of most tables.
const FILE = { title: "File", key: row => row.path, name: true };
const PROCESS = { title: "Process", key: who };

const causesOf = (rows, fits) => [...new Set(rows.filter(fits).map(row => row.cause).filter(Boolean))];

function grouped(id, title, rows, fits, noun) {
  const of = row => data.findings.rows.filter(found => fits(found, row));
  return section(title, null, table({
    id, caption: "Open one for its findings, why and what to do",
    rows: rows.rows, leftOut: rows.left_out, sort: 2,
    columns: [
      { title: noun, key: row => row.name, name: true },
      { title: "Requests", number: true, key: row => row.requests },
      { title: "Findings", number: true, key: row => row.findings },
      { title: "Bytes", number: true, key: row => row.bytes.total, show: row => bytes(row.bytes.total), text: () => "" },
      { title: "Direct", number: true, about: "share of the bytes moved that went past the page cache",
        key: row => row.bytes.direct / Math.max(1, row.bytes.direct + row.bytes.cached),
        show: row => share(row.bytes), text: () => "" },
      { title: "p50", number: true, key: row => row.latency_p50_ns, show: row => duration(row.latency_p50_ns), text: () => "" },
      { title: "p99", number: true, key: row => row.latency_p99_ns, show: row => duration(row.latency_p99_ns), text: () => "" },
      { title: "Causes", key: row => causesOf(data.findings.rows, found => fits(found, row)).join(", ") },
    ],
    more: row => {
      const found = of(row);
      if (!found.length) return [el("p", {}, "No findings.")];
      return found.slice(0, 20).map(finding => pairs([
        ["who", who(finding) + ", " + finding.op + ", " + finding.path],
        ["what", el("span", {}, chip(finding.verdict, finding.outcome), " " + count(finding.requests)
          + (finding.errno ? " × " + finding.errno : " times"))],
        ["why", finding.why], ["fix", finding.fix, "fix"]]));
    } }));
}

function findings() {
  if (!data.findings.rows.length) return null;
  const left = data.findings_left_out ? count(data.findings_left_out)
    + " findings of rare kinds are in no row. " : "";
  return section("Findings", left || null, table({
    id: "findings", caption: "By process, file, operation, verdict and cause",
    rows: data.findings.rows, leftOut: data.findings.left_out, sort: 5,
    columns: [
      FILE,
      PROCESS,
      { title: "Op", key: row => row.op },
      { title: "Verdict", key: row => row.verdict + " " + (row.outcome || ""), show: row => chip(row.verdict, row.outcome) },
      { title: "Cause", key: row => row.cause || "" },
      { title: "Findings", number: true, key: row => row.requests },
      { title: "Bytes", number: true, key: row => row.bytes, show: row => bytes(row.bytes), text: () => "" },
      { title: "Slowest", number: true, key: row => row.latency_max_ns, show: row => duration(row.latency_max_ns), text: () => "" },
      { title: "First", number: true, key: row => row.first, show: row => moment(row.first), text: () => "" },
      { title: "Last", number: true, key: row => row.last, show: row => moment(row.last), text: () => "" },
    ],
    more: row => [pairs([
      ["why", row.why], ["fix", row.fix, "fix"], ["errno", row.errno], ["file system", row.fs],
      ["cost beside", row.flushed_pages || row.invalidated_pages ? count(row.flushed_pages)
        + " pages flushed, " + count(row.invalidated_pages) + " dropped" : null]])] }));
}

function allRows() {
  return section("Every file", data.rows_left_out ? count(data.rows_left_out)
    + " more rows are not in this page." : null, table({
    id: "rows", caption: "By process, file, operation, verdict and outcome; healthy requests too",
    rows: summary.files, sort: 5,
    columns: [
      FILE,
      PROCESS,
      { title: "FS", key: row => row.fs },
      { title: "Op", key: row => row.op },
      { title: "Verdict", key: row => row.verdict + " " + (row.outcome || ""), show: row => chip(row.verdict, row.outcome) },
      { title: "Requests", number: true, key: row => row.requests },
      { title: "Findings", number: true, key: row => row.findings },
      { title: "Bytes", number: true, key: row => row.bytes.total, show: row => bytes(row.bytes.total), text: () => "" },
      { title: "p50", number: true, key: row => row.latency_p50_ns, show: row => duration(row.latency_p50_ns), text: () => "" },
      { title: "p99", number: true, key: row => row.latency_p99_ns, show: row => duration(row.latency_p99_ns), text: () => "" },
      { title: "Note", key: row => row.cause || "" },
    ],
    more: summary.files.some(row => row.why) ? row => [el("p", {}, row.why || "Nothing to add.")] : null }));
}

function shorts() {
  const rows = summary.files.filter(row => row.outcome && row.outcome.startsWith("short"));
  return rows.length ? section("Short", "Fewer bytes than were asked for.", table({
    id: "shorts", caption: "Short requests by process, file and reason", rows, sort: 4,
    columns: [
      FILE,
      PROCESS,
      { title: "Op", key: row => row.op },
      { title: "Reason", key: row => row.outcome, show: row => chip(row.verdict, row.outcome) },
      { title: "Requests", number: true, key: row => row.requests },
    ] })) : null;
}

/** The details of a row that has a cause. */
function whyAndFix(row) {
  return [pairs([["why", row.why], ["fix", row.fix, "fix"]])];
}

function refusals() {
  const rows = summary.refusals;
  return rows.length ? section("O_DIRECT refused",
    "At open or fcntl, so that no request followed.", table({
    id: "refusals", caption: "By process and file", rows, sort: 4,
    columns: [
      FILE,
      PROCESS,
      { title: "Call", key: row => row.call + " " + row.errno },
      { title: "FS", key: row => row.fs },
      { title: "Times", number: true, key: row => row.count },
    ],
    more: whyAndFix })) : null;
}

function mixed() {
  const users = (list, of) => list.map(user => who(user) + " (" + of(user) + ")").join(", ");
  const direct = row => users(row.direct, u => count(u.reads) + " reads, " + count(u.writes) + " writes");
  const cached = row => users(row.cached, u => count(u.pages_cached) + " pages cached, "
    + count(u.pages_dirtied) + " dirtied");
  return summary.mixed.length ? section("Mixed",
    "Files that some use directly and others through the page cache.", table({
    id: "mixed", caption: "By file", rows: summary.mixed, sort: 3,
    columns: [
      FILE,
      { title: "Directly by", key: direct },
      { title: "Through the page cache by", key: cached },
      { title: "Flushed", number: true, key: row => row.flushed_pages },
      { title: "Dropped", number: true, key: row => row.invalidated_pages },
    ] })) : null;
}

function notAsked() {
  const rows = summary.not_asked;
  return rows.length ? section("Not asked",
    "Files that are expected to be used directly (--expect-direct), and uses of them that did not ask for direct I/O.", table({
    id: "not-asked", caption: "By process and file", rows, sort: 2,
    columns: [
      FILE,
      PROCESS,
      { title: "Reads", number: true, key: row => row.reads },
      { title: "Bytes read", number: true, key: row => row.read_bytes, show: row => bytes(row.read_bytes), text: () => "" },
      { title: "Writes", number: true, key: row => row.writes },
      { title: "Bytes written", number: true, key: row => row.write_bytes, show: row => bytes(row.write_bytes), text: () => "" },
      { title: "Mappings", number: true, key: row => row.mappings },
    ],
    more: whyAndFix })) : null;
}

function nowait() {
  const rows = summary.nowait;
  return rows.length ? section("RWF_NOWAIT gains nothing",
    "Files on which most requests that must not wait ended with EAGAIN, or went to a worker of io_uring.", table({
    id: "nowait", caption: "By process, file and operation", rows, sort: 4,
    columns: [
      FILE,
      PROCESS,
      { title: "Op", key: row => row.op },
      { title: "Requests", number: true, key: row => row.requests },
      { title: "EAGAIN", number: true, key: row => row.eagain },
      { title: "By a worker", number: true, key: row => row.punted },
    ],
    more: whyAndFix })) : null;
}

function alignmentProbes() {
  const rows = summary.alignment_probes;
  return rows.length ? section("Alignment probes",
    "Reads that were refused on purpose: the program tries out which alignment works. They are no findings.", table({
    id: "probes", caption: "By process and file", rows, sort: 2,
    columns: [
      FILE,
      PROCESS,
      { title: "Refused", number: true, key: row => row.requests },
      { title: "Lengths", key: row => row.shortest + " to " + row.longest },
      { title: "Worked with", key: row => row.worked === null ? "not recorded" : String(row.worked) },
    ],
    more: row => [el("p", {}, row.why)] })) : null;
}

function coverage() {
  const lost = Object.entries(summary.lost).filter(([, n]) => n);
  const skipped = sum(Object.values(summary.skipped_runs));
  const seen = count(sum(Object.values(summary.requests))) + " ended, " + count(summary.in_flight)
    + " in flight, " + count(summary.unmatched) + " unmatched; lost "
    + (lost.length ? lost.map(([why, n]) => count(n) + " (" + why + ")").join(", ") : "none")
    + "; cannot tell " + count(summary.requests.unknown)
    + (skipped ? "; probe runs skipped by the kernel " + count(skipped) : "");
  const { attached, missing } = summary.probes;
  return section("What was seen", "A verdict rests on what the kernel did; what was lost is counted.",
    pairs([
      ["seen", seen],
      ["probes", attached.length + " attached by " + summary.attach + ", kernel " + summary.kernel],
      ["missing", missing.length ? el("ul", {}, missing.map(gap => el("li", {}, gap.probe + ": " + gap.why)))
        : "none"],
      ["recording", count(report.requests_recorded) + " requests one by one in " + bytes(report.bytes)
        + ", by " + report.header.tool],
    ]),
    later("Probes attached", () => el("p", { class: "mono" }, attached.join(" "))));
}

// ---- the page

function filterBox() {
  const all = sum(tables.map(t => t.size));
  const output = el("output", { for: "filter" }, count(all) + " rows");
  const input = el("input", { id: "filter", type: "search", autocomplete: "off", spellcheck: "false",
    placeholder: "Filter all tables: words of a path, a process, a cause, a verdict …",
    "aria-label": "Filter all tables" });
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = sum(tables.map(t => t.filter(words)));
    output.textContent = words.length ? count(shown) + " of " + count(all) + " rows" : count(all) + " rows";
  });
  return el("div", { class: "filter", role: "search" }, input, output);
}

document.title = "dio-trace: " + report.file;
const first = causes();
const charts = [verdictsOverTime(), heatMap()];
const rest = [
  byVerdict(),
  grouped("files", "Files", data.files, (found, row) => found.path === row.name, "File"),
  grouped("processes", "Processes", data.processes, (found, row) => who(found) === row.name, "Process"),
  grouped("fs", "File systems", data.file_systems, (found, row) => found.fs === row.name, "File system"),
  findings(),
  el("div", { class: "pair" }, shorts(), refusals()),
  mixed(), notAsked(), nowait(), alignmentProbes(), allRows(), coverage()];
const main = el("main", { id: "main" }, notes(), first, cards(), el("div", { class: "pair" }, charts),
  filterBox(), rest);
fill(body, {}, [
  el("a", { class: "skip", href: "#main" }, "To the report"),
  heading(), contents(main), main]);
