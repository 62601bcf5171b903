/** Photos that come in: chosen, dropped anywhere on the page (folders too), or pasted. */

let pasted = 0;

/** Call `take(files)` for photos from any way in, and `refuse(sentence)` for what was dropped or pasted but is no file. */
export function listen({ buttons, input, take, refuse }) {
  for (const button of buttons) button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = ""; // so that the same photo can be chosen again
  });

  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files].map(named);
    if (files.length === 0) return;
    event.preventDefault();
    take(files);
  });

  let depth = 0; // dragenter and dragleave also come from every element within
  const shade = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dropping", depth > 0);
  };
  document.addEventListener("dragenter", () => shade(1));
  document.addEventListener("dragleave", () => shade(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    shade(-depth);
    const files = await filesOf(event.dataTransfer).catch(() => []); // a folder that cannot be read
    if (files.length > 0) take(files);
    else refuse("No photo in what was dropped. Save the picture as a file first, then drop the file.");
  });
}

/** Screenshots are all pasted as image.png. */
function named(file) {
  if (file.name !== "image.png") return file;
  pasted += 1;
  return new File([file], `pasted-${pasted}.png`, { type: file.type });
}

async function filesOf(transfer) {
  // Entries vanish when the event is over, so they are all taken before anything is awaited.
  const files = [...transfer.files];
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.());
  const folders = entries.filter((entry) => entry?.isDirectory);
  if (folders.length === 0) return files;
  const plain = files.filter((file) => !folders.some((folder) => folder.name === file.name));
  const inside = (await Promise.all(folders.map(filesWithin))).flat();
  return [...plain, ...inside.filter((file) => file.type.startsWith("image/"))];
}

async function filesWithin(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // 100 at a time
    if (some.length === 0) break;
    found.push(...some);
  }
  return (await Promise.all(found.map(filesWithin))).flat();
}
