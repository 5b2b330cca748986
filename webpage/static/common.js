// What all scripts share: words in the reader's language, elements, requests.
const words = JSON.parse(document.getElementById("words").textContent);

export function t(text, places = {}) {
  return (words[text] ?? text).replace(/\{(\w+)\}/g, (all, name) => places[name] ?? all);
}

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// Why something failed: its kind in the reader's language, where that is not the server's, and what the server said.
export function reason(code, said) {
  const kind = words[`code:${code}`];
  return [...(kind ? [kind, element("br")] : []), element("span", { lang: "en" }, said)];
}

export const secret = document.querySelector("meta[name=secret]").content;

// JSON of an answer; throws an Error with what the server said.
export async function api(path, options = {}) {
  const response = await fetch(`/api/v1${path}`, { ...options, headers: { "X-Dropscale-Secret": secret, ...options.headers } });
  const told = await response.json().catch(() => null);
  if (!response.ok) throw Object.assign(new Error(told?.error?.message ?? `${response.status}`), { status: response.status, code: told?.error?.code });
  return told;
}

// A thumbnail may be refused while many are made: ask again a few times, then show none.
export function mendThumbnails(root) {
  for (const image of root.querySelectorAll(".thumb img")) {
    if (image.dataset.tries) continue;
    image.dataset.tries = "0";
    const failed = () => {
      const tries = Number(image.dataset.tries) + 1;
      image.dataset.tries = tries;
      image.classList.add("missing");
      if (tries <= 4) setTimeout(() => { image.src = `${image.src.split("&")[0]}&again=${tries}`; }, 700 * tries);
    };
    image.addEventListener("error", failed);
    image.addEventListener("load", () => image.classList.remove("missing"));
    if (image.complete && image.naturalWidth === 0 && image.loading !== "lazy") failed();
  }
}
