/** Off the page's thread: thumbnails, cut-outs on backgrounds at full size, and many of them in one ZIP. */

import { zip } from "./zip.js";

/** Message in: { id, task, given }; out: { id, result } or { id, error }. */
self.onmessage = async ({ data: { id, task, given } }) => {
  try {
    const result = await TASKS[task](given);
    self.postMessage({ id, result }, result instanceof ImageBitmap ? [result] : []);
  } catch (error) {
    self.postMessage({ id, error: error.message });
  }
};

const TASKS = {
  thumbnail: ({ blob, height }) => createImageBitmap(blob, { resizeHeight: height, resizeQuality: "medium" }),

  composite: async ({ cutout, background }) => composite(cutout, background, await pictureOf(background)),

  archive: async ({ files, background }) => {
    const picture = await pictureOf(background);
    const composites = [];
    for (const { name, cutout } of files) composites.push({ name, blob: await composite(cutout, background, picture) });
    return zip(composites);
  },
};

function pictureOf({ kind, picture }) {
  return kind === "picture" ? createImageBitmap(picture) : null;
}

async function composite(cutout, background, picture) {
  // The service's own bytes: a canvas would lose the colours of nearly transparent pixels.
  if (background.kind === "transparent") return cutout;
  const image = await createImageBitmap(cutout);
  const { width, height } = image;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  if (picture) {
    cover(context, picture, width, height);
  } else {
    context.fillStyle = background.colour;
    context.fillRect(0, 0, width, height);
  }
  context.drawImage(image, 0, 0);
  image.close();
  return canvas.convertToBlob({ type: "image/png" });
}

/** Fill the canvas as CSS's `background: center / cover` does on the page. */
function cover(context, picture, width, height) {
  const scale = Math.max(width / picture.width, height / picture.height);
  const [w, h] = [picture.width * scale, picture.height * scale];
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, (width - w) / 2, (height - h) / 2, w, h);
}
