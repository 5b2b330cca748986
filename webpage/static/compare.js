// Before and after, one over the other: a handle shows more of either, and the picture can be moved and enlarged.
import { t } from "./common.js";

const MOST = 8; // pixels of the screen for one of the result
const STEP = 2; // percent, of an arrow key on the handle
const MOVE = 60; // pixels of the screen, of an arrow key on the picture

const view = document.getElementById("compare");
if (view) compare(view);

function compare(view) {
  const width = Number(view.dataset.width);
  const height = Number(view.dataset.height);
  const images = [...view.querySelectorAll("img")];
  const clip = document.getElementById("clip");
  const handle = document.getElementById("handle");
  const zooms = [...document.querySelectorAll("[data-zoom]")];
  const dot = () => 1 / (window.devicePixelRatio || 1); // pixels of the page for one of the screen
  let split = 50;
  let scale = 0; // pixels of the page for one of the result
  let isFit = true;
  let x = 0;
  let y = 0;

  view.style.height = "auto";
  view.style.aspectRatio = `${width} / ${height}`; // as far as the screen is high enough

  const fit = () => Math.min(view.clientWidth / width, view.clientHeight / height);

  function draw() {
    const limit = (offset, room, size) => (size <= room ? (room - size) / 2 : Math.min(0, Math.max(room - size, offset)));
    x = limit(x, view.clientWidth, width * scale);
    y = limit(y, view.clientHeight, height * scale);
    for (const image of images) {
      image.style.width = `${width}px`;
      image.style.height = `${height}px`;
      image.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    }
    view.classList.toggle("pixels", scale > dot() * 1.5);
    if (handle) {
      clip.style.clipPath = `inset(0 ${100 - split}% 0 0)`;
      handle.style.left = `${split}%`;
      handle.setAttribute("aria-valuenow", Math.round(split));
    }
    const shown = isFit ? "fit" : `${Math.round((scale / dot()) * 100) / 100}`;
    for (const button of zooms) button.setAttribute("aria-pressed", button.dataset.zoom === shown);
    view.dataset.scale = scale / dot();
  }

  function zoom(wanted, aroundX = view.clientWidth / 2, aroundY = view.clientHeight / 2) {
    const least = Math.min(fit(), dot());
    const to = Math.min(Math.max(wanted, least), MOST * dot());
    x = aroundX - ((aroundX - x) / scale) * to;
    y = aroundY - ((aroundY - y) / scale) * to;
    scale = to;
    isFit = Math.abs(to - fit()) < 1e-6;
    draw();
  }

  function showAll() {
    isFit = true;
    scale = fit();
    x = y = 0;
    draw();
  }

  function moveSplit(to) {
    split = Math.min(100, Math.max(0, to));
    draw();
  }

  for (const button of zooms) {
    button.addEventListener("click", () => (button.dataset.zoom === "fit" ? showAll() : zoom(Number(button.dataset.zoom) * dot())));
  }
  for (const button of document.querySelectorAll("[data-before]")) {
    button.addEventListener("click", () => {
      document.getElementById("before").src = `/pictures/${view.dataset.picture}/${button.dataset.before}`;
      view.classList.toggle("raw", button.dataset.before === "before");
      document.getElementById("before-tag").textContent = button.textContent;
      for (const other of document.querySelectorAll("[data-before]")) other.setAttribute("aria-pressed", other === button);
    });
  }
  if (document.querySelector("[data-before=before][aria-pressed=true]")) view.classList.add("raw");

  handle?.addEventListener("keydown", (event) => {
    const page = event.shiftKey ? 5 : 1;
    const to = { ArrowLeft: split - STEP * page, ArrowDown: split - STEP * page, ArrowRight: split + STEP * page, ArrowUp: split + STEP * page, PageDown: split - 10, PageUp: split + 10, Home: 0, End: 100 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    moveSplit(to);
  });
  view.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [MOVE, 0], ArrowRight: [-MOVE, 0], ArrowUp: [0, MOVE], ArrowDown: [0, -MOVE] }[event.key];
    if (moves) {
      x += moves[0];
      y += moves[1];
      draw();
    } else if (event.key === "+" || event.key === "=") {
      zoom(scale * 1.5);
    } else if (event.key === "-") {
      zoom(scale / 1.5);
    } else if (event.key === "0") {
      showAll();
    } else {
      return;
    }
    event.preventDefault();
  });
  view.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = view.getBoundingClientRect();
    zoom(scale * Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });

  // mouse, pen and fingers: one on the handle splits, one elsewhere moves, two enlarge
  const pointers = new Map();
  let splits = false;
  view.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    splits = pointers.size === 0 && event.target.closest("#handle") !== null;
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    view.setPointerCapture(event.pointerId);
    view.classList.add("moving");
  });
  view.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const box = view.getBoundingClientRect();
    const at = [event.clientX, event.clientY];
    if (splits) {
      moveSplit(((at[0] - box.left) / box.width) * 100);
    } else if (pointers.size === 1) {
      x += at[0] - before[0];
      y += at[1] - before[1];
      draw();
    } else {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      zoom((scale * apart(at)) / apart(before), (at[0] + other[0]) / 2 - box.left, (at[1] + other[1]) / 2 - box.top);
    }
    pointers.set(event.pointerId, at);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    view.addEventListener(name, (event) => {
      pointers.delete(event.pointerId);
      if (!pointers.size) { splits = false; view.classList.remove("moving"); }
    });
  }
  view.addEventListener("dblclick", (event) => {
    const box = view.getBoundingClientRect();
    if (isFit) zoom(Math.max(dot(), fit() * 2), event.clientX - box.left, event.clientY - box.top);
    else showAll();
  });
  for (const image of images) {
    image.addEventListener("error", () => { view.setAttribute("title", t("One of the pictures cannot be shown.")); });
  }
  new ResizeObserver(() => (isFit ? showAll() : draw())).observe(view);
  showAll();
}
