// The gallery: thumbnails, and trying failed pictures again.
import { api, mendThumbnails, reason, t } from "./common.js";

mendThumbnails(document);
const said = document.getElementById("said");

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-retry]");
  if (!button) return;
  button.disabled = true;
  try {
    const { name } = await api(`/pictures/${button.dataset.retry}/retry`, { method: "POST" });
    said.textContent = t("{name} is back in the inbox.", { name });
    button.closest(".card")?.remove();
    if (!button.closest(".card")) button.remove();
  } catch (error) {
    said.replaceChildren(...reason(error.code, error.message));
    button.disabled = false;
  }
});
