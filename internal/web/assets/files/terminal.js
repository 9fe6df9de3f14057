// A terminal over a WebSocket: what is typed goes as binary messages, the size as text. When the daemon goes away, a new shell is
// begun as soon as it is back; one that has ended waits for the button.
"use strict";
(() => {
const place = document.getElementById("terminal"), state = document.getElementById("terminal-state"), again = document.getElementById("again");
const term = new Terminal({ cursorBlink: true, fontSize: 13, scrollback: 5000, fontFamily: 'ui-monospace, "DejaVu Sans Mono", Menlo, monospace',
  theme: { background: "#16181a", foreground: "#dcdfe2" } });
const fit = new FitAddon.FitAddon();
term.loadAddon(fit);
term.open(place);
fit.fit();
term.onTitleChange(title => { document.title = `${place.dataset.vm}: ${title.replace(/[\p{Cc}\p{Cf}]/gu, "").slice(0, 60)}`; });

const encoder = new TextEncoder();
let socket, wait = 500;
const send = data => { if (socket && socket.readyState === WebSocket.OPEN) socket.send(data); };
const size = () => JSON.stringify({ rows: term.rows, cols: term.cols });

function connect() {
  again.hidden = true;
  state.textContent = "connecting…";
  let ended = "";
  socket = new WebSocket(`ws://${location.host}${place.dataset.socket}`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { socket.send(size()); state.textContent = "connected"; term.focus(); };
  socket.onmessage = e => {
    if (typeof e.data === "string") { ended = JSON.parse(e.data).end; return; }
    wait = 500;
    term.write(new Uint8Array(e.data));
  };
  socket.onclose = e => {
    if (e.wasClean && ended && !/cut|not running|canceled/.test(ended)) {
      state.textContent = ended;
      again.hidden = false;
      return;
    }
    state.textContent = "the daemon is away; a new shell is begun when it is back";
    setTimeout(connect, wait);
    wait = Math.min(wait * 2, 5000);
  };
}

term.onData(data => send(encoder.encode(data)));
term.onBinary(data => send(Uint8Array.from(data, c => c.charCodeAt(0))));
term.onResize(() => send(size()));
new ResizeObserver(() => fit.fit()).observe(place);
again.addEventListener("click", () => { term.reset(); connect(); });
connect();
})();
