/** Cut-outs to take away: one PNG, many in a ZIP, or the clipboard. */

import { work } from "./jobs.js";

const REVOKE_AFTER_MS = 60_000; // a browser may ask where to save first

/** Return the PNG of one photo on a background; where that is transparent, the service's own bytes. */
export async function render({ cutout }, background) {
  return background.kind === "transparent" ? cutout : work("composite", { cutout, background });
}

/** Return a ZIP of photos on a background. */
export function renderAll(photos, background) {
  const taken = new Set();
  const files = photos.map(({ name, cutout }) => ({ name: cutoutName(name, taken), cutout }));
  return work("archive", { files, background });
}

/** Return shirt.cutout.png for shirt.jpg, with a number where a disk would take it for one that is taken already. */
export function cutoutName(name, taken = new Set()) {
  const stem = name.replace(/\.[^.]*$/, "") || "photo";
  let unique = `${stem}.cutout.png`;
  for (let copy = 2; taken.has(keyOf(unique)); copy += 1) unique = `${stem}-${copy}.cutout.png`;
  taken.add(keyOf(unique));
  return unique;
}

/** Return what Windows and macOS tell names apart by: neither capitals nor how accents are written. */
function keyOf(name) {
  return name.normalize("NFC").toLowerCase();
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
