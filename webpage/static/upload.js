// Pictures on their way into the inbox, and what became of them.
import { api, element, reason, secret, t } from "./common.js";

const AT_A_TIME = 2;
const LOOKED_AT = 20; // unfinished ones, at a time
const PATIENCE_SECONDS = 20; // what is named so by the server, or the network is gone: tried again after this

export function takeUploads(drop, list) {
  const mostBytes = Number(drop.dataset.mostBytes);
  const summary = document.getElementById("uploads-summary");
  const queue = [];
  const sent = new Map();
  let running = 0;
  let looking = false;

  function take(files) {
    for (const file of files) {
      const entry = show(file.name);
      list.prepend(entry.row);
      if (file.size > mostBytes) {
        refuse(entry, [t("It is larger than {size} MB.", { size: Math.floor(mostBytes / 2 ** 20) })]);
      } else {
        queue.push({ file, entry });
      }
    }
    next();
  }

  function next() {
    while (running < AT_A_TIME && queue.length) {
      running += 1;
      const { file, entry } = queue.shift();
      send(file, entry).finally(() => { running -= 1; next(); });
    }
    summarise();
  }

  async function send(file, entry) {
    for (;;) {
      const { status, told, after } = await post(file, entry);
      if (status === 201) {
        entry.bar.remove();
        entry.name.textContent = told.name;
        entry.say(t("in the inbox"));
        sent.set(told.upload, entry);
        look();
        return;
      }
      if (status !== 429) {
        refuse(entry, status ? reason(told?.error?.code, told?.error?.message ?? `${status}`) : [t("The connection broke off. Send it again.")]);
        return;
      }
      entry.say(t("waits for its turn"));
      await new Promise((go) => setTimeout(go, (after || PATIENCE_SECONDS) * 1000));
    }
  }

  function post(file, entry) {
    return new Promise((resolve) => {
      const request = new XMLHttpRequest();
      request.open("POST", `/api/v1/pictures?name=${encodeURIComponent(file.name || `${t("pasted")}.png`)}`);
      request.setRequestHeader("Content-Type", "application/octet-stream");
      request.setRequestHeader("X-Dropscale-Secret", secret);
      request.responseType = "json";
      request.upload.onprogress = (event) => {
        if (!event.lengthComputable) return;
        entry.bar.value = event.loaded / event.total;
        entry.say(`${Math.floor((100 * event.loaded) / event.total)} %`);
      };
      request.onload = () => resolve({ status: request.status, told: request.response, after: Number(request.getResponseHeader("Retry-After")) });
      request.onerror = request.onabort = () => resolve({ status: 0 });
      entry.say(t("sending"));
      request.send(file);
    });
  }

  // Ask for those that have not come to their end; called whenever something happened.
  async function look() {
    if (looking) return;
    looking = true;
    try {
      for (const [ticket, entry] of [...sent].slice(0, LOOKED_AT)) {
        const fate = await api(`/uploads/${encodeURIComponent(ticket)}`);
        if (fate.state === "done") {
          entry.row.className = "done";
          entry.state.replaceChildren(element("a", { href: `/pictures/${fate.picture}` }, t("see the result")));
        } else if (fate.state === "failed") {
          refuse(entry, reason(fate.code, fate.why), t("failed"));
        } else {
          entry.say(t({ waiting: "waiting", working: "in work", gone: "taken out of the inbox" }[fate.state]));
          if (fate.state !== "gone") continue;
        }
        sent.delete(ticket);
      }
    } catch {
      // the next look may do better
    } finally {
      looking = false;
      summarise();
    }
  }

  function summarise() {
    const unsent = queue.length + running;
    summary.textContent = unsent ? t("Still to send: {count}", { count: unsent }) : sent.size ? t("In the inbox: {count}", { count: sent.size }) : "";
  }

  function pick(event) {
    take(event.target.files);
    event.target.value = "";
  }

  document.getElementById("files").addEventListener("change", pick);
  document.getElementById("camera").addEventListener("change", pick);
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) take(event.clipboardData.files);
  });
  // the whole window: a picture that misses the field must not replace the page
  window.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  window.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files);
  });
  window.addEventListener("beforeunload", (event) => { if (queue.length + running) event.preventDefault(); });
  return { look };
}

function show(title) {
  const name = element("span", { class: "name" }, title || t("pasted"));
  const state = element("span", { class: "state" });
  const bar = element("progress", { max: 1, value: 0, "aria-label": title || t("pasted") });
  const row = element("li", {}, name, state, bar);
  return { row, name, state, bar, say: (text) => { if (state.textContent !== text) state.textContent = text; } };
}

function refuse(entry, why, state = t("refused")) {
  entry.bar.remove();
  entry.row.className = "refused";
  entry.say(state);
  entry.row.append(element("p", { class: "reason" }, ...why));
}
