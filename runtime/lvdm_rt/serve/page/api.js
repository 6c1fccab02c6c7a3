// What this page asks the server: requests with the token, if there is one, and streams of events.
// A <video> and an EventSource cannot send a token, so both are read with fetch.

const KEPT = "lvdm-rt-token";

export class NeedsToken extends Error {}

let token = sessionStorage.getItem(KEPT) ?? "";

export function setToken(given) {
  token = given;
  sessionStorage.setItem(KEPT, given);
}

export async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) return answer;
  if (answer.status === 401) throw new NeedsToken();
  const told = await answer.json().catch(() => null);
  throw new Error(told?.error?.message ?? `the server answered ${answer.status}`);
}

export async function askJson(path, options) {
  return parsed(await (await ask(path, options)).text());
}

// JSON, in which seeds of more digits than a Number holds become text.
function parsed(text) {
  return JSON.parse(text.replaceAll(/("seed":)(\d{16,})/g, '$1"$2"'));
}

// The address of a file for <video>, <img> and downloads: its own, or of what was fetched.
export async function fileOf(path) {
  if (!token) return path;
  return URL.createObjectURL(await (await ask(path)).blob());
}

export function letGo(address) {
  if (address?.startsWith("blob:")) URL.revokeObjectURL(address);
}

export async function* events(path, signal) {
  const answer = await ask(path, { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const name = /^event: (.*)$/m.exec(part);
      const data = /^data: (.*)$/m.exec(part);
      if (name && data) yield { name: name[1], told: parsed(data[1]) };
    }
  }
}
