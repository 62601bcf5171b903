/** Cut-outs to take away: one PNG, many in a ZIP, or the clipboard. */

const REVOKE_AFTER_MS = 60_000; // a browser may ask where to save first

let worker = null;
let lastId = 0;
const pending = new Map();

/** Return the PNG of one photo on a background. */
export function render(photo, background) {
  return work({ files: [{ name: photo.name, cutout: photo.cutout }], background, archive: false });
}

/** Return a ZIP of photos on a background. */
export function renderAll(photos, background) {
  const taken = new Set();
  const files = photos.map(({ name, cutout }) => ({ name: cutoutName(name, taken), cutout }));
  return work({ files, background, archive: true });
}

/** Return shirt.cutout.png for shirt.jpg, with a number where that name is taken already. */
export function cutoutName(name, taken = new Set()) {
  const stem = name.replace(/\.[^.]*$/, "") || "photo";
  let unique = `${stem}.cutout.png`;
  for (let copy = 2; taken.has(unique); copy += 1) unique = `${stem}-${copy}.cutout.png`;
  taken.add(unique);
  return unique;
}

/** Give a blob to the visitor as a file. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), REVOKE_AFTER_MS);
}

/** Whether this browser, here, lets a page write pictures to the clipboard: over https and on localhost. */
export const canCopy = Boolean(navigator.clipboard?.write && self.ClipboardItem);

/** Put a PNG, or the promise of one, on the clipboard. */
export function copy(png) {
  return navigator.clipboard.write([new ClipboardItem({ "image/png": png })]);
}

function work(job) {
  worker ??= start();
  lastId += 1;
  const id = lastId;
  return new Promise((resolve, reject) => {
    pending.set(id, { resolve, reject });
    worker.postMessage({ id, ...job });
  });
}

function start() {
  const started = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  started.onmessage = ({ data: { id, blob, error } }) => {
    const { resolve, reject } = pending.get(id);
    pending.delete(id);
    if (error) reject(new Error(error));
    else resolve(blob);
  };
  started.onerror = () => {
    for (const { reject } of pending.values()) reject(new Error("The background could not be drawn."));
    pending.clear();
    worker = null;
  };
  return started;
}
