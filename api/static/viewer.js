/** The selected photo, large: photo and cut-out on each side of a boundary that is moved by pointer or keyboard. */

const REVEAL = "revealing";
const LITTLE = 15; // per cent of the width: too little for a side's tag
const NOTHING = { blob: null, url: null, image: null };

/** The frame with its two layers and its boundary. */
export class Viewer {
  constructor(frame) {
    this.frame = frame;
    this.slider = frame.querySelector("input");
    this.note = frame.querySelector("#frame-note");
    this.beforeLayer = frame.querySelector(".before");
    this.afterLayer = frame.querySelector(".after");
    this.before = this.after = NOTHING; // what is shown
    this.wanted = {}; // what will be shown when it is decoded
    this.shown = null;
    this.slider.addEventListener("input", () => this.moveTo(this.slider.value));
    frame.addEventListener("pointerdown", (event) => this.grab(event));
    for (const end of ["transitionend", "transitioncancel"]) {
      frame.addEventListener(end, () => frame.classList.remove(REVEAL));
    }
    this.moveTo(50);
  }

  /** Show a photo as far as it is there, or nothing for null; the promise of its pixel size, null if it is unknown. */
  show(photo) {
    const wanted = { file: photo?.file ?? null, cutout: photo?.cutout ?? null };
    if (wanted.file !== this.wanted.file || wanted.cutout !== this.wanted.cutout) {
      this.wanted = wanted;
      this.shown = this.load(wanted, photo?.name);
    }
    return this.shown;
  }

  /** Decode both pictures off the page's thread, then swap them in together. What was shown stays until then. */
  async load(wanted, name) {
    const [before, after] = await Promise.all([
      open(wanted.file, `Photo ${name}`, this.before),
      open(wanted.cutout, `Cut-out of ${name}`, this.after),
    ]);
    if (wanted !== this.wanted) {
      if (before !== this.before) close(before);
      if (after !== this.after) close(after);
      return null;
    }
    const appears = before === this.before && !this.after.image;
    this.before = swap(this.beforeLayer, this.before, before);
    this.after = swap(this.afterLayer, this.after, after);
    const image = after.image ?? before.image;
    const size = image && { width: image.naturalWidth, height: image.naturalHeight };
    this.fit(size, sameSize(before.image, after.image));
    if (this.isCompared && appears) this.reveal();
    return size;
  }

  /** Show what the photo is waiting for, "" for nothing. */
  setNote(text) {
    this.note.textContent = text;
    this.frame.classList.toggle("working", Boolean(text));
  }

  /** Show a background behind the cut-out: a CSS colour or a picture's URL; null for the checkerboard. */
  setBackground(colour, pictureUrl) {
    const { style } = this.afterLayer;
    style.backgroundColor = colour ?? "";
    style.backgroundImage = pictureUrl ? `url("${pictureUrl}")` : "";
    this.afterLayer.classList.toggle("checker", !colour && !pictureUrl);
  }

  /** A cut-out in a frame of its own cannot lie over its photo: it is shown alone. */
  fit(size, comparable) {
    this.frame.classList.toggle("blank", !size);
    this.frame.classList.toggle("compared", Boolean(this.after.image) && comparable);
    this.frame.classList.toggle("alone", Boolean(this.after.image) && !comparable);
    if (!size) return;
    this.frame.style.setProperty("--ratio", size.width / size.height);
    this.frame.style.setProperty("--width", `${size.width}px`);
  }

  get isCompared() {
    return this.frame.classList.contains("compared");
  }

  /** Put the boundary at a percentage of the width from the left; the photo is left of it. */
  moveTo(percent) {
    const split = Math.round(Math.min(100, Math.max(0, percent)));
    this.slider.value = split;
    this.slider.setAttribute("aria-valuetext", `${split} % photo, ${100 - split} % cut-out`);
    this.frame.style.setProperty("--split", `${split}%`);
    this.frame.classList.toggle("little-photo", split < LITTLE);
    this.frame.classList.toggle("little-cut-out", split > 100 - LITTLE);
  }

  /** Draw the boundary from the right edge to where it was: the photo becomes its cut-out. */
  reveal() {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const target = this.slider.value;
    this.frame.classList.remove(REVEAL);
    this.moveTo(100);
    void this.frame.offsetWidth; // so that the transition starts there
    this.frame.classList.add(REVEAL);
    this.moveTo(target);
  }

  grab(event) {
    if (event.button !== 0 || !this.isCompared) return;
    event.preventDefault();
    this.slider.focus({ preventScroll: true });
    this.frame.classList.remove(REVEAL);
    const follow = ({ clientX }) => {
      const { left, width } = this.frame.getBoundingClientRect();
      this.moveTo(((clientX - left) / width) * 100);
    };
    const release = () => {
      this.frame.removeEventListener("pointermove", follow);
      for (const end of ["pointerup", "pointercancel"]) this.frame.removeEventListener(end, release);
    };
    this.frame.setPointerCapture(event.pointerId);
    this.frame.addEventListener("pointermove", follow);
    for (const end of ["pointerup", "pointercancel"]) this.frame.addEventListener(end, release);
    follow(event);
  }
}

/** Decode a blob into a picture; the current one where it is that blob's, and one without an image if it cannot be. */
async function open(blob, alt, current) {
  if (blob === current.blob) return current;
  if (!blob) return NOTHING;
  const url = URL.createObjectURL(blob);
  const image = Object.assign(new Image(), { alt, draggable: false, decoding: "async", src: url });
  try {
    await image.decode();
    return { blob, url, image };
  } catch {
    URL.revokeObjectURL(url);
    return { ...NOTHING, blob };
  }
}

/** Whether a cut-out has its photo's size; where the browser cannot read the photo, it stands in for it. */
function sameSize(before, after) {
  if (!before || !after) return true;
  return before.naturalWidth === after.naturalWidth && before.naturalHeight === after.naturalHeight;
}

/** An object URL lives as long as its picture is shown, so that the browser's "Save image as" works. */
function close({ url }) {
  if (url) URL.revokeObjectURL(url);
}

function swap(layer, old, picture) {
  if (picture === old) return old;
  close(old);
  layer.replaceChildren(...(picture.image ? [picture.image] : []));
  return picture;
}
