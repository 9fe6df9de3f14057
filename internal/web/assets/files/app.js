// Keeps a page as it is now: parts marked data-live are replaced after something has happened, and forms are sent without
// leaving the page. Everything but the live parts works without it.
"use strict";
(() => {
const $ = (selector, from = document) => from.querySelector(selector);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];

for (const a of all("nav a")) if (location.pathname.startsWith(a.getAttribute("href"))) a.setAttribute("aria-current", "page");

// ---- what has changed

// put replaces the live parts of the page by those of html that differ. What a person is using stays: the focus goes to the part
// that took its place.
function put(html) {
  const next = new DOMParser().parseFromString(html, "text/html");
  for (const old of all("[data-live]")) {
    const part = next.getElementById(old.id);
    if (!part || part.outerHTML === old.dataset.html) continue;
    const focus = old.contains(document.activeElement) ? document.activeElement.id || document.activeElement.getAttribute("href") : null;
    const text = part.outerHTML;
    if (focus === null && document.getSelection().containsNode(old, true) && !document.getSelection().isCollapsed) continue;
    part.dataset.html = text;
    old.replaceWith(document.adoptNode(part));
    if (focus) (document.getElementById(focus) || all("a", part).find(a => a.getAttribute("href") === focus))?.focus();
  }
  draw();
}

let loading = false, again = false;
async function refresh() {
  if (loading) { again = true; return; }
  loading = true;
  try {
    do {
      again = false;
      const form = $("form[data-preview]");
      const url = form ? preview(form) : location.href;
      const answer = await fetch(url, { headers: { "X-Script": "1" } });
      if (answer.status === 401) { location.reload(); return; }
      if (answer.ok) put(await answer.text());
      else if (answer.status === 404) location.assign("/");
      for (const part of all("[data-src]:not([data-once])")) await fill(part);
    } while (again);
  } catch { /* the daemon is away; the stream tells when it is back */ } finally { loading = false; }
}

// fill loads a fragment, for which a guest or the host is asked.
async function fill(part) {
  try {
    const answer = await fetch(part.dataset.src);
    if (!answer.ok) return;
    const html = await answer.text();
    if (html === part.dataset.html) return;
    part.dataset.html = html;
    part.replaceChildren(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
  } catch { /* as above */ }
}

const link = $("#link");
function follow() {
  const stream = new EventSource("/live");
  let lost = false;
  stream.onopen = () => { link.className = "link on"; link.textContent = "live"; if (lost) refresh(); lost = false; };
  stream.onerror = () => {
    link.className = "link off"; link.textContent = "waiting"; lost = true;
    if (stream.readyState === EventSource.CLOSED) { stream.close(); setTimeout(follow, 1000); }
  };
  stream.addEventListener("change", refresh);
  stream.addEventListener("stats", e => { for (const vm of JSON.parse(e.data) || []) note(vm); draw(); });
}

// ---- statistics

const kept = 120, history = new Map(); // by VM: the last differences
function note(vm) {
  const h = history.get(vm.id) || { cpu: [], mem: [], net: [] };
  history.set(vm.id, h);
  const at = Date.parse(vm.at), guest = vm.guest || {};
  if (h.at && at > h.at) {
    const s = (at - h.at) / 1000, add = (list, v) => { list.push(Math.max(0, v)); if (list.length > kept) list.shift(); };
    add(h.cpu, (vm.cpu_ms - h.cpuMS) / 1000 / s);
    add(h.mem, vm.mem_resident);
    add(h.net, ((guest.net_rx || 0) + (guest.net_tx || 0) - h.bytes) / s);
  }
  if (h.at !== at) { h.at = at; h.cpuMS = vm.cpu_ms; h.bytes = (guest.net_rx || 0) + (guest.net_tx || 0); }
}

function size(n) {
  let i = 0;
  for (; n >= 1000 && i < 4; i++) n /= 1024;
  return `${n >= 99.5 || i === 0 ? n.toFixed(0) : n.toFixed(1)} ${["B", "KiB", "MiB", "GiB", "TiB"][i]}`;
}
const figure = { cpu: v => `${(v * 100).toFixed(0)} % of a processor`, mem: v => `${size(v)} on the host`, net: v => `${size(v)}/s received and sent` };

function draw() {
  for (const svg of all("svg[data-spark]")) {
    const values = history.get(svg.dataset.vm)?.[svg.dataset.spark] || [];
    const top = Math.max(Number(svg.dataset.max) || 0, ...values, 1e-9), step = 100 / (kept - 1);
    const points = values.map((v, i) => `${(100 - (values.length - 1 - i) * step).toFixed(2)} ${(29 - v / top * 27).toFixed(2)}`);
    if (points.length === 1) points.unshift(points[0].replace(/^\S+/, "99"));
    svg.setAttribute("viewBox", "0 0 100 30");
    svg.setAttribute("preserveAspectRatio", "none");
    const line = points.length ? "M" + points.join("L") : "M0 29L100 29";
    const area = points.length ? `${line}L100 30L${points[0].split(" ")[0]} 30Z` : "";
    const path = (d, kind) => { const p = document.createElementNS("http://www.w3.org/2000/svg", "path"); p.setAttribute("d", d); if (kind) p.setAttribute("class", kind); return p; };
    svg.replaceChildren(path(area, "area"), path(line));
  }
  for (const p of all("[data-figure]")) {
    const v = history.get(p.dataset.vm)?.[p.dataset.figure]?.at(-1);
    if (v !== undefined) p.textContent = figure[p.dataset.figure](v);
  }
}

// ---- forms

function say(text) {
  const toast = $("#toast");
  toast.textContent = text;
  toast.hidden = !text;
}

function confirmed(text) {
  const dialog = $("#confirm");
  $("p", dialog).textContent = text;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise(done => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

document.addEventListener("submit", async e => {
  const form = e.target;
  if (form.method !== "post" || form.action.endsWith("/logout")) return;
  e.preventDefault();
  if (form.dataset.confirm && !await confirmed(form.dataset.confirm)) return;
  const button = e.submitter || $("button", form);
  button.disabled = true;
  say("");
  try {
    const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)), headers: { "X-Script": "1" } });
    if (answer.status === 401) { location.reload(); return; }
    const text = await answer.text();
    let body;
    try { body = JSON.parse(text); } catch { body = { message: text }; }
    if (!answer.ok) say(body.message + (body.hint ? `\n${body.hint}` : ""));
    else if (new URL(body.next, location).pathname !== location.pathname) location.assign(body.next);
    else if (form.action.endsWith("/fix")) location.reload();
    else refresh();
  } catch { say("The daemon does not answer."); } finally { button.disabled = false; }
});
$("#toast").addEventListener("click", () => say(""));

function preview(form) {
  const values = new URLSearchParams(new FormData(form));
  values.delete("csrf");
  return form.dataset.preview + "?" + values;
}
$("form[data-preview]")?.addEventListener("input", refresh);

// ---- logs

async function showLog(log) {
  const most = 5000, search = $("#search"), follow = $("#follow");
  const fits = line => { const q = search.value.toLowerCase(), at = q ? line.textContent.toLowerCase().indexOf(q) : 0; line.hidden = at < 0; return at; };
  search.addEventListener("input", () => { for (const line of log.children) fits(line); });
  for (;;) {
    try {
      const answer = await fetch(log.dataset.log);
      if (!answer.ok) { say((await answer.json()).message); return; }
      log.replaceChildren();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        const part = document.createDocumentFragment();
        for (const text of lines) { const line = document.createElement("div"); line.textContent = text || " "; fits(line); part.append(line); }
        log.append(part);
        while (log.childElementCount > most) log.firstChild.remove();
        if (follow.checked) log.scrollTop = log.scrollHeight;
      }
    } catch { /* the daemon is away */ }
    await new Promise(done => setTimeout(done, 2000));
  }
}

for (const part of all("[data-src]")) fill(part);
for (const part of all("[data-live]")) part.dataset.html = "";
const log = $("[data-log]");
if (log) showLog(log);
draw();
follow();
})();
