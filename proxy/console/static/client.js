// Asks the proxy. The token lives in this module's memory and nowhere else.

let token = "";

export const hasToken = () => token !== "";
export function useToken(given) {
  token = given.trim();
  waiting.forEach((resume) => resume());
}

const waiting = new Set();

/** Wait, but not after a token was given: what was refused may go now. */
export function pause(forMs) {
  return new Promise((resolve) => {
    const resume = () => { clearTimeout(timer); waiting.delete(resume); resolve(); };
    const timer = setTimeout(resume, forMs);
    waiting.add(resume);
  });
}

export class Refusal extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

function headers(more = {}) {
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

async function reached(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", credentials: "omit", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "the proxy does not answer");
  }
  if (response.ok) return response;
  let text = `the proxy answered ${response.status}`;
  try {
    text = (await response.json()).error ?? text;
  } catch { /* no JSON: the status must do */ }
  throw new Refusal(response.status, text);
}

/** Ask for JSON; with a body, by POST. */
export async function ask(path, body = undefined, using = undefined) {
  const authorization = using ? { Authorization: `Bearer ${using.trim()}` } : {};
  const options = body === undefined ? { headers: headers() } : {
    method: "POST",
    headers: { ...headers({ "Content-Type": "application/json" }), ...authorization },
    body: JSON.stringify(body),
  };
  return (await reached(path, options)).json();
}

const SILENCE_MS = 15_000; // three heartbeats
const LONGEST_WAIT_MS = 10_000;

/** Follow a stream of JSON lines for good; after a break it is asked for again, ever later. */
export async function follow(path, { onEvent, onState }) {
  let waitMs = 500;
  for (;;) {
    const end = new AbortController();
    try {
      await lines(path, end, (line) => {
        if (waitMs !== 500 || line === "") onState(true);
        waitMs = 500;
        if (line === "") return;
        const event = JSON.parse(line);
        if (event.error) throw new Refusal(0, event.error);
        onEvent(event);
      });
      onState(false, "the stream ended");
    } catch (error) {
      onState(false, error.message);
    } finally {
      end.abort();
    }
    await pause(waitMs);
    waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS);
  }
}

async function lines(path, end, onLine) {
  let silence = setTimeout(() => end.abort(), SILENCE_MS);
  try {
    const response = await reached(path, { headers: headers(), signal: end.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(() => end.abort(), SILENCE_MS);
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      parts.forEach(onLine);
    }
  } finally {
    clearTimeout(silence);
  }
}
