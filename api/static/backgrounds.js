/** The choice of a background: transparent, a colour, or a picture of one's own. */

/** `current` is { kind: "transparent" }, { kind: "colour", colour } or { kind: "picture", picture: Blob }. */
export class Backgrounds {
  /** `refuse(sentence)` is called for a picture that cannot be read. */
  constructor(fieldset, pictureInput, viewer, refuse) {
    this.fieldset = fieldset;
    this.viewer = viewer;
    this.refuse = refuse;
    this.picture = null;
    this.pictureUrl = null;
    this.colour = fieldset.querySelector("#colour");
    this.ownColour = fieldset.querySelector("#own-colour");
    this.ownPicture = fieldset.querySelector("#own-picture");
    fieldset.addEventListener("change", (event) => {
      if (event.target.type === "radio") this.apply();
    });
    this.colour.addEventListener("input", () => this.chooseColour());
    fieldset.querySelector("#choose-picture").addEventListener("click", () => pictureInput.click());
    pictureInput.addEventListener("change", () => {
      if (pictureInput.files.length > 0) this.choosePicture(pictureInput.files[0]);
      pictureInput.value = "";
    });
    this.apply();
  }

  get current() {
    const { value } = this.fieldset.querySelector("input[type=radio]:checked");
    if (value === "transparent") return { kind: "transparent" };
    if (value === "picture") return { kind: "picture", picture: this.picture };
    return { kind: "colour", colour: value === "own" ? this.colour.value : value };
  }

  chooseColour() {
    this.ownColour.style.backgroundColor = this.colour.value;
    this.check(this.ownColour);
  }

  async choosePicture(picture) {
    const url = URL.createObjectURL(picture);
    try {
      await Object.assign(new Image(), { src: url }).decode();
    } catch {
      URL.revokeObjectURL(url);
      this.refuse(`This browser cannot read ${picture.name} as a picture. Choose a JPEG, PNG or WebP file.`);
      return;
    }
    if (this.pictureUrl) URL.revokeObjectURL(this.pictureUrl);
    this.picture = picture;
    this.pictureUrl = url;
    this.ownPicture.style.backgroundImage = `url("${this.pictureUrl}")`;
    this.check(this.ownPicture);
  }

  check(swatch) {
    swatch.hidden = false;
    swatch.querySelector("input").checked = true;
    this.apply();
  }

  apply() {
    const { kind, colour } = this.current;
    this.viewer.setBackground(colour, kind === "picture" ? this.pictureUrl : null);
  }
}
