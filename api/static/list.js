/** The list of photos, each with its thumbnail, its state and its buttons. */

import { work } from "./jobs.js";
import { limiter } from "./limiter.js";

const LOOK_BELOW = 0.9; // as keras_matting.photos.confidence has it
const drawOne = limiter(1); // a large photo takes 100 MB while it is decoded

/** One entry for each photo; `actions` has `select(photo)`, `retry(photo)` and `remove(photo)`. */
export class PhotoList {
  constructor(element, template, actions) {
    this.element = element;
    this.template = template;
    this.actions = actions;
    this.entries = new Map();
  }

  add(photo) {
    const entry = this.template.content.firstElementChild.cloneNode(true);
    entry.querySelector(".name").textContent = photo.name;
    entry.querySelector(".photo").title = photo.name; // the list cuts long ones off
    for (const [name, act] of [["photo", "select"], ["retry", "retry"], ["remove", "remove"]]) {
      const button = entry.querySelector(`.${name}`);
      button.addEventListener("click", () => this.actions[act](photo));
      if (name !== "photo") this.label(button, `${name === "retry" ? "Try again" : "Remove"}: ${photo.name}`);
    }
    entry.querySelector("progress").setAttribute("aria-label", `Progress of ${photo.name}`);
    this.entries.set(photo, entry);
    this.element.append(entry);
    this.update(photo);
    this.draw(photo, photo.file);
  }

  /** Take a photo out, and put the focus on its neighbour if it was within; returns whether there is one. */
  remove(photo) {
    const entry = this.entries.get(photo);
    const neighbour = entry.nextElementSibling ?? entry.previousElementSibling;
    if (entry.contains(document.activeElement)) neighbour?.querySelector(".photo").focus();
    entry.remove();
    this.entries.delete(photo);
    return Boolean(neighbour);
  }

  select(photo) {
    for (const [other, entry] of this.entries) {
      const button = entry.querySelector(".photo");
      if (other === photo) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
    this.entries.get(photo)?.scrollIntoView({ block: "nearest" });
  }

  update(photo) {
    const entry = this.entries.get(photo);
    entry.dataset.state = photo.state;
    entry.querySelector(".state").textContent = describe(photo);
    entry.classList.toggle("unsure", doubt(photo) !== "");
    entry.querySelector(".retry").hidden = photo.state !== "failed";
    const bar = entry.querySelector("progress");
    bar.hidden = !["uploading", "working", "loading", "busy"].includes(photo.state);
    if (photo.state === "uploading") bar.value = photo.progress;
    else bar.removeAttribute("value");
  }

  /** Draw the thumbnail of a blob; nothing where the browser cannot read it. */
  async draw(photo, blob) {
    const canvas = this.entries.get(photo).querySelector("canvas");
    await drawOne(async () => {
      if (!this.entries.has(photo)) return;
      const image = await work("thumbnail", { blob, height: canvas.height }).catch(() => null);
      if (!image) return;
      canvas.width = Math.max(1, Math.min(image.width, 2 * canvas.height));
      canvas.getContext("2d").drawImage(image, (canvas.width - image.width) / 2, 0);
      canvas.classList.add("drawn");
      image.close();
    });
  }

  label(button, text) {
    button.setAttribute("aria-label", text);
    button.title = text;
  }
}

/** Return in words why somebody should look at a photo's cut-out; "" if there is no reason. */
export function doubt({ state, confidence }) {
  if (state !== "done" || !(confidence < LOOK_BELOW)) return ""; // nor where it is not told
  return confidence ? "unsure: have a look" : "nothing was taken";
}

/** Return a photo's state in words. */
export function describe(photo) {
  const { state, progress, waitS, attempt, attempts, elapsedMs, problem } = photo;
  if (state === "waiting") return "Waiting";
  if (state === "uploading") return progress < 1 ? `Sending, ${Math.round(progress * 100)} %` : "Sent";
  if (state === "working") return "Cutting out…";
  if (state === "loading") return "Getting the model ready…";
  if (state === "busy") return `Server busy; again in ${waitS} s (${attempt} of ${attempts})`;
  if (state === "failed") return problem.title;
  return [`Done in ${seconds(elapsedMs)}`, doubt(photo)].filter(Boolean).join(" · ");
}

/** Return milliseconds as people read them. */
export function seconds(ms) {
  return `${(ms / 1000).toFixed(ms < 1000 ? 2 : 1)} s`;
}
