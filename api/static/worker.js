/** Off the page's thread: cut-outs on backgrounds at full size, and many of them into one ZIP. */

import { zip } from "./zip.js";

/** Message in: { id, files: [{ name, cutout }], background, archive }; out: { id, blob } or { id, error }. */
self.onmessage = async ({ data: { id, files, background, archive } }) => {
  try {
    const picture = background.kind === "picture" ? await createImageBitmap(background.picture) : null;
    const composites = [];
    for (const { name, cutout } of files) composites.push({ name, blob: await composite(cutout, background, picture) });
    self.postMessage({ id, blob: archive ? await zip(composites) : composites[0].blob });
  } catch (error) {
    self.postMessage({ id, error: error.message });
  }
};

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
