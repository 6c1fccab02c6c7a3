// How a video is told to people.

export function title(video) {
  return video.prompt?.trim() || `Seed ${video.seed}`;
}

export function described(video) {
  switch (video.status) {
    case "queued":
      return "It waits for its turn.";
    case "in_progress":
      return "It is being made.";
    case "completed": {
      const took = video.completed_at - (video.started_at ?? video.created_at);
      return `${video.seconds} s of video, made in ${took < 1 ? "less than 1" : took} s.`;
    }
    case "cancelled":
      return "It was cancelled.";
    default:
      return `It failed: ${video.error?.message ?? "nobody knows why"}`;
  }
}

const NAMES = {
  mode: "Mode",
  sampler: "Sampler",
  steps: "Steps",
  eta: "Eta",
  refine: "Steps to refine",
  guidance: "Guidance by frames",
  text_guidance: "Guidance by text",
  negative_prompt: "Negative prompt",
  noise_level: "Noise level",
};

const NOTHING = { eta: 0, refine: 0, guidance: 0, text_guidance: 0, noise_level: -1 };

// Pairs of a name and a value, those that say most first.
export function settingsOf(video) {
  const { settings } = video;
  const told = [
    ["Seed", video.seed],
    ["Length", `${video.num_frames} frames, ${video.fps} a second`],
    ["Size", video.size.replace("x", " × ")],
    ["Model", video.model],
  ];
  if (video.prompt) told.unshift(["Prompt", video.prompt]);
  for (const [field, name] of Object.entries(NAMES)) {
    const value = settings[field];
    const says = value !== undefined && value !== null && value !== "" && value !== NOTHING[field];
    if (says) told.push([name, value]);
  }
  if (settings.exact) told.push(["Exact", "yes"]);
  if (video.continues_video) told.push(["Continues", "an uploaded video"]);
  told.push(["Id", video.id]);
  return told.map(([name, value]) => [name, String(value)]);
}
