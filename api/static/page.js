/** The page: photos come in, are cut out by the service two at a time, compared, and taken away. */

import { ask, cutOut, Problem } from "./api.js";
import { Backgrounds } from "./backgrounds.js";
import { canCopy, copy, cutoutName, render, renderAll, save } from "./downloads.js";
import { Framing } from "./framing.js";
import { listen } from "./intake.js";
import { limiter } from "./limiter.js";
import { describe, doubt, PhotoList, seconds } from "./list.js";
import { Viewer } from "./viewer.js";

const REQUESTS_IN_FLIGHT = 2;
const UNAUTHORIZED = 401;
const SHOW_COPIED_MS = 2000;

const element = (id) => document.getElementById(id);
const limited = limiter(REQUESTS_IN_FLIGHT);
const viewer = new Viewer(element("frame"));
const backgrounds = new Backgrounds(element("backgrounds"), element("picture"), viewer, notify);
const framing = new Framing(element("framing"));
const list = new PhotoList(element("photos"), element("photo-item"), { select, retry: run, remove });

let photos = [];
let selected = null;
let titles = new Map(); // of models: what people call them

listen({ buttons: document.querySelectorAll("[data-choose]"), input: element("files"), take: add, refuse: notify });
element("problem-retry").addEventListener("click", () => run(selected));
element("download").addEventListener("click", download);
element("download-all").addEventListener("click", downloadAll);
element("copy").addEventListener("click", copySelected);
element("copy").hidden = !canCopy;
element("clear").addEventListener("click", () => photos.forEach(remove));
element("settings").addEventListener("change", settingsChanged);
element("settings").addEventListener("submit", (event) => event.preventDefault());
element("apply").addEventListener("click", () => outdated().forEach((photo) => run(photo)));
element("key").addEventListener("change", keyGiven);
let introduced = introduce();

/** Show what the service offers: its version, its models, and whether it wants a key. */
async function introduce() {
  const key = element("key").value;
  const [about, offer] = await Promise.all([ask("version", key), ask("v1/models", key)]);
  if (about.content) element("version").textContent = `${about.content.name} ${about.content.version}`;
  if (offer.status === UNAUTHORIZED) element("key-field").hidden = false;
  if (!offer.content) return;
  const { models, default: first } = offer.content;
  titles = new Map(models.map(({ name, title }) => [name, title ?? name]));
  const options = models.map(({ name, title, engine }) => {
    const isDefault = name === first;
    return new Option(title ?? (engine ? `${name} (${engine})` : name), name, isDefault, isDefault);
  });
  element("model").replaceChildren(...options);
  element("model-label").textContent = models.every(({ title }) => title) ? "Cut out" : "Model";
  element("model-field").hidden = options.length < 2;
}

/** Try what failed for want of a key. */
function keyGiven() {
  introduced = introduce();
  photos.filter(({ problem }) => problem?.code === "unauthorized").forEach((photo) => run(photo));
}

function currentSettings() {
  const { value: model } = element("model");
  const [foreground, refine] = ["foreground", "refine"].map((id) => element(id).checked);
  return { model, foreground, refine, framing: framing.current };
}

/** Photos that were cut out, or are being, with other settings than the current ones. */
function outdated() {
  const current = JSON.stringify(currentSettings());
  return photos.filter((photo) => JSON.stringify(photo.settings) !== current);
}

/** The selected photo shows at once what settings do; the others wait until that is asked for. */
function settingsChanged(event) {
  if (event.target.id === "key") return;
  if (selected && outdated().includes(selected)) run(selected);
  refresh();
}

function add(files) {
  const added = files.map((file) => ({ file, name: file.name, state: "waiting", cutout: null, problem: null }));
  photos.push(...added);
  added.forEach((photo) => list.add(photo));
  notify("");
  announce(added.length === 1 ? `${added[0].name} was added.` : `${added.length} photos were added.`);
  select(added[0]);
  added.forEach((photo) => run(photo));
}

function remove(photo) {
  photo.abort.abort();
  const index = photos.indexOf(photo);
  photos = photos.filter((other) => other !== photo);
  list.remove(photo);
  if (photo === selected) select(photos[Math.min(index, photos.length - 1)] ?? null);
  else refresh();
  if (photos.length === 0) document.querySelector("[data-choose]").focus();
}

function select(photo) {
  selected = photo;
  list.select(photo);
  refresh();
}

/** Send a photo to the service, with the current settings; what was under way for it is given up. */
async function run(photo) {
  photo.abort?.abort();
  photo.abort = new AbortController();
  const { signal } = photo.abort;
  const report = (change) => {
    if (signal.aborted) return;
    Object.assign(photo, change);
    list.update(photo);
    refresh();
  };
  report({ state: "waiting", problem: null, settings: currentSettings() });
  await introduced; // the default model is known then
  report({ settings: currentSettings() });
  try {
    const answer = await limited(() => timed(photo, signal, report), { first: photo === selected });
    report({ state: "done", ...answer });
    list.draw(photo, photo.cutout);
  } catch (error) {
    if (signal.aborted) return;
    const problem = error instanceof Problem ? error : new Problem({ title: "Failed", detail: error.message });
    report({ state: "failed", problem });
  }
  if (!signal.aborted) announce(`${photo.name}: ${describe(photo)}. ${finished()} of ${photos.length} finished.`);
}

async function timed({ file, settings }, signal, report) {
  const start = performance.now();
  const answer = await cutOut(file, { ...settings, key: element("key").value }, signal, report);
  return { ...answer, elapsedMs: performance.now() - start };
}

function finished() {
  return photos.filter(({ state }) => state === "done" || state === "failed").length;
}

function outcome() {
  const failed = photos.filter(({ state }) => state === "failed").length;
  const unsure = photos.filter((photo) => doubt(photo)).length;
  const told = [`${photos.length - failed} cut out`, unsure && `${unsure} to look at`, failed && `${failed} failed`];
  return told.filter(Boolean).join(", ");
}

/** Bring everything but the list's entries up to what is selected and what has been done. */
async function refresh() {
  document.body.classList.toggle("empty", photos.length === 0);
  const [done, count] = [finished(), photos.length];
  const busy = done < count;
  document.title = busy ? `${done}/${count} · Cut-outs` : "Cut-outs · keras_matting";
  element("count").textContent = busy ? `${done} of ${count} finished` : outcome();
  element("overall").hidden = !busy || count < 2;
  element("overall").value = count ? done / count : 0;
  element("download-all").disabled = !photos.some(isDone);
  element("download-all").hidden = element("clear").hidden = count < 2;
  element("apply").hidden = !outdated().some((photo) => photo !== selected);
  for (const id of ["download", "copy"]) element(id).disabled = !selected?.cutout;
  element("tools").hidden = selected?.state === "failed" && !selected.cutout;
  element("photo-name").textContent = selected?.name ?? "";
  showProblem(selected?.state === "failed" ? selected.problem : null);
  const under = selected && !["done", "failed"].includes(selected.state);
  viewer.setNote(under ? describe(selected) : "");
  const photo = selected;
  const size = await viewer.show(photo);
  if (photo === selected) element("facts").textContent = size ? facts(photo, size) : "";
}

function facts({ cutout, settings, serverMs }, { width, height }) {
  const parts = [`${width} × ${height}`];
  if (cutout && settings.model) parts.push(titles.get(settings.model) ?? settings.model);
  if (cutout && serverMs) parts.push(`${seconds(serverMs)} on the server`);
  return parts.join(" · ");
}

function showProblem(problem) {
  element("problem").hidden = !problem;
  if (!problem) return;
  const { title, detail, remedy, requestId } = problem;
  element("problem-title").textContent = title;
  element("problem-detail").textContent = detail.includes(remedy) ? detail : `${detail} ${remedy}`;
  element("problem-id").textContent = requestId ? `Request ${requestId}` : "";
}

async function download() {
  const photo = selected;
  await making(element("download"), async () => save(await render(photo, backgrounds.current), cutoutName(photo.name)));
}

/** Take away what is done, and tell what that is not: a photo that failed may have the cut-out of earlier settings. */
async function downloadAll() {
  const ready = photos.filter(isDone);
  const told = [leftOut(photos.length - ready.length), differing(outdated().filter(isDone).length)];
  await making(element("download-all"), async () => {
    save(await renderAll(ready, backgrounds.current), "cutouts.zip");
    notify(told.filter(Boolean).join(" "));
  });
}

function isDone({ state }) {
  return state === "done";
}

function leftOut(count) {
  if (count === 0) return "";
  return `${count === 1 ? "1 photo is" : `${count} photos are`} not in the ZIP: not finished, or failed.`;
}

function differing(count) {
  if (count === 0) return "";
  const which = count === 1 ? "1 photo in the ZIP was" : `${count} photos in the ZIP were`;
  return `${which} cut out with other settings than the present ones; “Apply to all photos” cuts them out anew.`;
}

async function copySelected() {
  const button = element("copy");
  await making(button, async () => {
    await copy(render(selected, backgrounds.current));
    announce("Copied.");
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), SHOW_COPIED_MS);
  });
}

/** Keep a button from being pressed again while it makes something; tell where that fails. */
async function making(button, task) {
  notify("");
  button.setAttribute("aria-busy", "true");
  button.disabled = true;
  try {
    await task();
  } catch (error) {
    notify(error.message);
  }
  button.disabled = false;
  button.removeAttribute("aria-busy");
}

/** Tell something that the visitor has to know; "" clears it. */
function notify(sentence) {
  element("notice").textContent = sentence;
}

/** Tell what a sighted visitor sees anyway. */
function announce(sentence) {
  element("announcement").textContent = sentence;
}
