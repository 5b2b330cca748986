import { mendThumbnails } from "./common.js";
import { showNow } from "./now.js";
import { takeUploads } from "./upload.js";

mendThumbnails(document);
const latest = document.getElementById("latest");
const uploads = takeUploads(document.getElementById("drop"), document.getElementById("uploads"));
let ended = null;

showNow(document.getElementById("now"), async (now) => {
  const before = ended;
  ended = now.totals.done + now.totals.failed;
  uploads.look();
  if (before === null || before === ended) return;
  const response = await fetch("/latest");
  if (!response.ok) return;
  latest.replaceChildren(document.createRange().createContextualFragment(await response.text()));
  mendThumbnails(latest);
});
