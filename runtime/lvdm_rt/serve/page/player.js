// Pictures of a video that is being made: its fragments as they come, and coarse pictures before.

const Source = window.ManagedMediaSource ?? window.MediaSource;
const PICTURES_PER_SECOND = 4;
const KEPT_BEHIND = 10; // seconds that stay where a browser's memory for films is full

export const canPlayLive = Source !== undefined;

const once = (target, name) =>
  new Promise((resolve) => target.addEventListener(name, resolve, { once: true }));

// Play the answer to a request for a stream; comes back when all of it is in the browser.
export async function playStream(video, answer) {
  const source = new Source();
  const address = URL.createObjectURL(source);
  video.disableRemotePlayback = true; // which ManagedMediaSource wants
  video.src = address;
  try {
    await once(source, "sourceopen");
    const buffer = source.addSourceBuffer(answer.headers.get("Content-Type"));
    const reader = answer.body.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done || source.readyState !== "open") break;
      await append(video, buffer, value);
    }
    if (source.readyState === "open") source.endOfStream();
  } finally {
    URL.revokeObjectURL(address);
  }
}

async function append(video, buffer, data) {
  for (;;) {
    try {
      buffer.appendBuffer(data);
      await once(buffer, "updateend");
      return;
    } catch (problem) {
      if (problem.name !== "QuotaExceededError") throw problem;
    }
    const seen = video.currentTime - KEPT_BEHIND;
    if (seen > 0) {
      buffer.remove(0, seen);
      await once(buffer, "updateend");
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

// Draws the pictures of a clip one after another, as they are in one strip side by side.
export class Preview {
  constructor(canvas) {
    this.canvas = canvas;
    this.strip = null;
    this.count = 1;
    this.shown = 0;
    this.timer = null;
    this.still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  }

  async show({ picture, pictures }) {
    const strip = new Image();
    strip.src = picture;
    await strip.decode();
    this.strip = strip;
    this.count = pictures;
    this.draw();
    if (!this.still) this.timer ??= setInterval(() => this.turn(), 1000 / PICTURES_PER_SECOND);
  }

  turn() {
    this.shown += 1;
    this.draw();
  }

  draw() {
    const { canvas, strip, count } = this;
    const width = strip.width / count;
    const scale = Math.ceil(512 / Math.max(width, strip.height));
    if (canvas.width !== width * scale || canvas.height !== strip.height * scale) {
      canvas.width = width * scale;
      canvas.height = strip.height * scale;
    }
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    const left = (this.shown % count) * width;
    context.drawImage(strip, left, 0, width, strip.height, 0, 0, canvas.width, canvas.height);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
  }
}
