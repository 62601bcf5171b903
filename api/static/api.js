/** The service's HTTP interface: photos to cut-outs, with upload progress, patience when it is busy, and its problems. */

const RETRIES = 5;
const BUSY = [429, 503];
const LONGEST_WAIT_S = 60;
const LOADING = "loading"; // the state of a model that is being got ready

/** What went wrong: `title`, `detail` (a sentence), `remedy` and `requestId` for people, `code` for the page. */
export class Problem extends Error {
  constructor({ title, detail = "", remedy = "", code = "", request_id = "" }) {
    super(title);
    Object.assign(this, { title, detail, remedy, code, requestId: request_id });
  }
}

/**
 * Return { cutout: Blob (RGBA PNG), serverMs, confidence } for a photo; confidence is from 0 (nothing was taken) to 1, NaN
 * if it is not told. `settings`: { model, foreground, refine, framing, key }, of which model and key may be "", and framing
 * has the service's words; what is undefined is not asked for.
 *
 * `report` is called with { state: "uploading", progress } (0 to 1), { state: "working" }, { state: "loading" } while the
 * model is being got ready, and { state: "busy", waitS, attempt, attempts }. Throws `Problem`, and the signal's reason when it is aborted.
 */
export async function cutOut(file, settings, signal, report) {
  for (let attempt = 1; ; attempt += 1) {
    const answer = await send(file, settings, signal, report);
    if (answer.status === 200) {
      const confidence = parseFloat(answer.confidence ?? "");
      return { cutout: answer.body, serverMs: totalMs(answer.serverTiming), confidence };
    }
    const problem = await problemOf(answer);
    if (problem.code === "model_loading") {
      report({ state: "loading" });
      await loaded(settings, waitOf(answer), signal);
      attempt -= 1;
      continue;
    }
    if (!BUSY.includes(answer.status) || problem.code === "model_unavailable" || attempt > RETRIES) throw problem;
    for (let waitS = waitOf(answer); waitS > 0; waitS -= 1) {
      report({ state: "busy", waitS, attempt, attempts: RETRIES });
      await pause(1000, signal);
    }
  }
}

/** Wait until a model is not being got ready any more; the photo is sent again only then. */
async function loaded({ model, key }, waitS, signal) {
  let described = null;
  do {
    await pause(1000 * waitS, signal);
    const { content } = await ask("v1/models", key);
    described = content?.models.find(({ name }) => name === (model || content.default));
  } while (described?.state === LOADING);
}

/** Return { status, content }: the JSON that the service has at `path`; null, and status 0, if it does not answer. */
export async function ask(path, key) {
  try {
    const response = await fetch(path, { headers: authorization(key) });
    return { status: response.status, content: response.ok ? await response.json() : null };
  } catch {
    return { status: 0, content: null };
  }
}

function authorization(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** POST a photo. XMLHttpRequest, because fetch does not tell how much has been sent. */
function send(file, { model, foreground, refine, framing, key }, signal, report) {
  const query = new URLSearchParams({ output: "rgba" });
  if (model) query.set("model", model);
  if (foreground) query.set("foreground", "true");
  if (refine) query.set("refine", "true");
  for (const [name, value] of Object.entries(framing)) if (value !== undefined) query.set(name, value);
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    signal.addEventListener("abort", abort);
    request.open("POST", `v1/matte?${query}`);
    request.responseType = "blob";
    const headers = { Accept: "image/png", ...authorization(key) };
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => report({ state: "uploading", progress: event.loaded / event.total });
    request.upload.onload = () => report({ state: "working" });
    request.onload = () => {
      const header = (name) => request.getResponseHeader(name);
      const { status, response: body } = request;
      const [serverTiming, retryAfter] = [header("Server-Timing"), header("Retry-After")];
      resolve({ status, body, serverTiming, retryAfter, confidence: header("X-Matte-Confidence") });
    };
    request.onerror = () => reject(unreachable());
    request.onabort = () => reject(signal.reason);
    request.onloadend = () => signal.removeEventListener("abort", abort);
    report({ state: "uploading", progress: 0 });
    request.send(file);
  });
}

function unreachable() {
  const detail = "Nothing came back: the server is not running, or broke off because the photo is above its limits.";
  return new Problem({ title: "No answer", detail, remedy: "Check both, then try again." });
}

async function problemOf({ status, body }) {
  try {
    const problem = JSON.parse(await body.text());
    return new Problem({ ...problem, title: problem.title ?? `Error ${status}` });
  } catch {
    return new Problem({ title: `Error ${status}`, detail: "The server did not say why." });
  }
}

function waitOf({ retryAfter }) {
  const seconds = Math.ceil(Number(retryAfter));
  return Math.min(seconds > 0 ? seconds : 1, LONGEST_WAIT_S);
}

/** Sum the phases of a Server-Timing header: "decode;dur=3.1, infer;dur=201". */
function totalMs(serverTiming) {
  const durations = [...(serverTiming ?? "").matchAll(/;\s*dur=([\d.]+)/g)];
  return durations.reduce((sum, [, ms]) => sum + Number(ms), 0);
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const abort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", abort);
      resolve();
    }, ms);
    signal.addEventListener("abort", abort, { once: true });
  });
}
