/** The frame of a cut-out: the photo's, the subject's, or a canvas of a size; with a margin, and a shadow. */

const PHOTO = "photo";
const SUBJECT = "subject";
const OWN = "own";

/** `current` is what the service is asked for: { crop, canvas, margin, shadow }, each undefined where it is not. */
export class Framing {
  constructor(form) {
    const field = (id) => form.querySelector(`#${id}`);
    [this.frame, this.margin, this.width, this.height, this.shadow] = ["frame-kind", "margin", "width", "height", "shadow"].map(field);
    this.marginField = field("margin-field");
    this.sizeField = field("size-field");
    this.frame.addEventListener("change", () => this.showFields());
    this.showFields(); // a browser keeps choices when the page is loaded again
  }

  get current() {
    const kind = this.frame.value;
    const size = kind === OWN ? `${whole(this.width)}x${whole(this.height)}` : kind;
    return {
      crop: kind === SUBJECT || undefined,
      canvas: [PHOTO, SUBJECT].includes(kind) ? undefined : size,
      margin: kind === PHOTO ? undefined : `${whole(this.margin)}%`,
      shadow: this.shadow.checked ? "soft" : undefined,
    };
  }

  showFields() {
    this.marginField.hidden = this.frame.value === PHOTO;
    this.sizeField.hidden = this.frame.value !== OWN;
  }
}

/** The whole number in a field, within its bounds; what it began with where there is none. */
function whole({ value, defaultValue, min, max }) {
  const number = Math.round(Number(value === "" ? defaultValue : value));
  return Math.min(Math.max(number, Number(min)), Number(max));
}
