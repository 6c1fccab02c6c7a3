// Videos of before, the newest first, a picture each.

import { askJson, fileOf } from "./api.js";
import { title } from "./words.js";

const PAGE = 24;

function blank() {
  const made = document.createElement("span");
  made.className = "picture blank";
  return made;
}

export class Gallery {
  constructor(list, none, more, show, carefully) {
    Object.assign(this, { list, none, more, show });
    this.videos = new Map(); // id → { video, item, button }
    more.addEventListener("click", () => carefully(() => this.load()));
  }

  newest() {
    return this.list.firstElementChild && this.videos.get(this.list.firstElementChild.id)?.video;
  }

  async load() {
    const last = this.list.lastElementChild; // those that were removed lead nowhere
    const after = last ? `&after=${last.id}` : "";
    const told = await askJson(`v1/videos?limit=${PAGE}${after}`);
    for (const video of told.data) this.put(video, { last: true });
    this.more.hidden = !told.has_more;
  }

  // Adds a video in front, or at the end, or tells what has become of it.
  put(video, { last = false } = {}) {
    let entry = this.videos.get(video.id);
    if (!entry) {
      entry = this.made(video);
      this.videos.set(video.id, entry);
      if (last) this.list.append(entry.item);
      else this.list.prepend(entry.item);
    }
    entry.video = video;
    entry.note.textContent = video.status === "completed" ? `${video.seconds} s` : video.status.replace("_", " ");
    if (video.status === "completed" && !entry.drawn) this.draw(entry);
    this.none.hidden = this.videos.size > 0;
  }

  made(video) {
    const [item, button, caption, note] = ["li", "button", "span", "small"].map((name) =>
      document.createElement(name),
    );
    const picture = blank();
    item.id = video.id;
    button.type = "button";
    caption.className = "caption";
    caption.append(title(video), note);
    button.append(picture, caption);
    button.title = title(video);
    item.append(button);
    const entry = { video, item, button, picture, note };
    button.addEventListener("click", () => this.show(entry.video));
    return entry;
  }

  async draw(entry) {
    entry.drawn = true;
    const image = new Image();
    image.className = "picture";
    image.alt = "";
    image.loading = "lazy";
    entry.picture.replaceWith(image);
    entry.picture = image;
    const path = `v1/videos/${entry.video.id}/content?variant=thumbnail`;
    image.onerror = () => image.replaceWith((entry.picture = blank()));
    image.src = await fileOf(path).catch(() => "");
  }

  mark(video) {
    for (const { button } of this.videos.values()) button.removeAttribute("aria-current");
    this.videos.get(video.id)?.button.setAttribute("aria-current", "true");
  }

  remove(video) {
    this.videos.get(video.id)?.item.remove();
    this.videos.delete(video.id);
    this.none.hidden = this.videos.size > 0;
  }
}
