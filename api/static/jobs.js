/** What would make the page stutter runs in a worker. */

let worker = null;
let lastId = 0;
const pending = new Map();

/** Return what one of worker.js's tasks makes of `given`. */
export function work(task, given) {
  worker ??= start();
  lastId += 1;
  const id = lastId;
  return new Promise((resolve, reject) => {
    pending.set(id, { resolve, reject });
    worker.postMessage({ id, task, given });
  });
}

function start() {
  const started = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  started.onmessage = ({ data: { id, result, error } }) => {
    const { resolve, reject } = pending.get(id);
    pending.delete(id);
    if (error) reject(new Error(error));
    else resolve(result);
  };
  started.onerror = () => {
    for (const { reject } of pending.values()) reject(new Error("This browser cannot draw in the background."));
    pending.clear();
    worker = null;
  };
  return started;
}
