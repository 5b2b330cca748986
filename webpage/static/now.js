// What happens now, by server-sent events; by asking again and again where those do not come through.
import { api, element, t } from "./common.js";

const ASK_SECONDS = 3;
const LISTEN_AGAIN_SECONDS = 60;

const ENGINE = {
  off: ["Engine off", "it costs nothing"],
  starting: ["Engine starting", "it loads its model"],
  working: ["Engine working", ""],
  warm: ["Engine warm", "it waits a little for more work"],
};

export function showNow(root, told) {
  let source = null;
  let asking = null;
  let again = null;
  const show = (now) => { render(root, now); told(now); };

  async function ask() {
    try {
      show(await api("/status"));
    } catch (error) {
      if (error.status === 401) location.reload(); // to the door
      say(root, t("The page does not answer."));
    }
  }

  function rest() {
    source?.close();
    clearInterval(asking);
    clearTimeout(again);
    asking = null;
  }

  function listen() {
    rest();
    if (document.hidden) return;
    source = new EventSource("/events");
    source.onmessage = (event) => {
      clearInterval(asking);
      asking = null;
      root.dataset.by = "events";
      show(JSON.parse(event.data));
    };
    source.onerror = () => {
      if (asking === null) {
        root.dataset.by = "asking";
        ask();
        asking = setInterval(ask, ASK_SECONDS * 1000);
      }
      if (source.readyState === EventSource.CLOSED) {
        clearTimeout(again);
        again = setTimeout(listen, LISTEN_AGAIN_SECONDS * 1000);
      }
    };
  }

  // A browser has six connections to a server, for all its tabs: those that nobody sees must not hold them.
  document.addEventListener("visibilitychange", listen);
  window.addEventListener("pagehide", rest);
  window.addEventListener("pageshow", (event) => { if (event.persisted) listen(); });
  listen();
}

function say(root, text) {
  root.querySelector("#watcher").textContent = text;
}

function render(root, now) {
  const [title, more] = ENGINE[now.engine.state];
  root.dataset.state = now.engine.state;
  put(root, "#engine", t(title));
  const until = now.engine.until && t("until {time}", { time: new Date(now.engine.until).toLocaleTimeString(document.documentElement.lang) });
  put(root, "#engine-more", [more && t(more), until].filter(Boolean).map((text) => `· ${text}`).join(" "));
  const pause = now.watching && now.watching !== "yes" ? now.watching : "";
  const totals = t("{done} done so far, {failed} failed", now.totals);
  say(root, pause || (now.running ? `${t("The watcher is running.")} ${totals}` : t("No watcher is running: start dropscale run.")));
  root.querySelector("#problems").replaceChildren(...now.problems.map((problem) => element("li", { lang: "en" }, problem)));
  const held = now.held ? [t("No engine starts before {until}: {why}", { until: new Date(now.held.until).toLocaleString(document.documentElement.lang), why: inWords(now.held.why) })] : [];
  if (now.gpu_waiting) held.push(t("A batch waits for the GPU: {why}", { why: now.gpu_waiting }));
  root.querySelector("#held").replaceChildren(...held.map((text) => element("li", {}, text)));
  root.querySelector("#batch").replaceChildren(...batch(now.batch));
  lists(root.querySelector("#lists"), now);
}

function put(root, selector, text) {
  const place = root.querySelector(selector);
  if (place.textContent !== text) place.textContent = text;
}

function batch(running) {
  if (!running) return [];
  const bar = (label, done, total, text) => element("div", { class: "work" },
    element("div", { class: "label" }, element("span", {}, label), element("span", { class: "muted" }, text)),
    element("progress", { max: Math.max(total, 1), value: done, "aria-label": label }));
  return [
    bar(t("This window"), running.ended, running.pictures, t("{ended} of {pictures} pictures", running)),
    ...running.working.map((work) => bar(work.path, work.done, work.total, t("{done} of {total} tiles", work))),
  ];
}

const TITLES = { waiting: "Waiting: {count}", working: "In work: {count}", ignored: "Left alone: {count}" };

// What the watcher says of a file, as far as it is of a known form; a test holds these against its sources.
const FORMS = [
  [/^(.*) \(next try at ([\d:]+)\)$/, (why, time) => t("{why} (next try at {time})", { why: inWords(why), time })],
  [/^(.*) \(next try: as soon as a watcher looks\)$/, (why) => t("{why} (next try: as soon as a watcher looks)", { why: inWords(why) })],
  [/^held until (.*?\d\d:\d\d): (.*)$/, (until, why) => t("held until {until}: {why}", { until, why: inWords(why) })],
  [/^engines do not start in these hours \((.*)\)$/, (key) => t("engines do not start in these hours ({key})", { key })],
  [/^the budget is used up: (.*)$/, (use) => t("the budget is used up: {use}", { use })],
  [/^cannot be decoded, perhaps unfinished: (.*)$/, (why) => t("cannot be decoded, perhaps unfinished: {why}", { why })],
];

function inWords(why) {
  for (const [form, say] of FORMS) {
    const found = form.exec(why);
    if (found) return say(...found.slice(1));
  }
  return t(why);
}

function lists(root, now) {
  const wasOpen = new Set([...root.querySelectorAll("details[open]")].map((details) => details.dataset.list));
  const first = !root.dataset.shown;
  root.dataset.shown = "yes";
  const made = Object.entries(TITLES).filter(([name]) => now[name].count > 0).map(([name, title]) => {
    const { count, files } = now[name];
    const rows = files.map((file) => element("li", {}, file.path, element("span", { class: "why" }, inWords(file.why))));
    if (count > files.length) rows.push(element("li", { class: "muted" }, t("and {count} more", { count: count - files.length })));
    const open = wasOpen.has(name) || (first && name !== "ignored");
    return element("details", { "data-list": name, open }, element("summary", {}, t(title, { count })), element("ul", {}, ...rows));
  });
  // what did not change is left alone: somebody may be reading it
  const told = JSON.stringify(Object.keys(TITLES).map((name) => now[name]));
  if (root.dataset.told === told) return;
  root.dataset.told = told;
  root.replaceChildren(...made);
}
