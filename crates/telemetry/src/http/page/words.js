// Numbers and times in words. Whatever is not known is a dash.

export const DASH = "–";
const known = (value) => value !== null && value !== undefined;

export function bytes(count) {
  if (!known(count)) return DASH;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  const digits = unit === 0 || count >= 100 ? 0 : 1;
  return count.toFixed(digits) + " " + units[unit];
}

export const count = (value) => known(value) ? value.toLocaleString("en-US") : DASH;

export function rate(value) {
  if (!known(value)) return DASH;
  if (value === 0 || value >= 100) return Math.round(value).toLocaleString("en-US");
  return value.toFixed(value >= 10 ? 0 : 1);
}

// A length of time, with the two greatest units that matter.
export function duration(seconds) {
  if (!known(seconds)) return DASH;
  if (seconds < 59.95) return seconds.toFixed(1) + " s";
  const whole = Math.round(seconds);
  if (whole < 3600) return Math.floor(whole / 60) + " min " + (whole % 60) + " s";
  if (whole < 172800) return Math.floor(whole / 3600) + " h " + Math.floor(whole % 3600 / 60) + " min";
  if (whole < 86400 * 1000) return Math.floor(whole / 86400) + " days";
  return "more than 1000 days";
}

// Rounded to what a forecast is worth.
export function about(seconds) {
  if (!known(seconds)) return DASH;
  if (seconds < 60) return Math.ceil(seconds) + " s";
  if (seconds < 7200) return Math.round(seconds / 60) + " min";
  if (seconds < 172800) return Math.round(seconds / 3600) + " h";
  return duration(seconds);
}

// A moment, and how long ago that was when the server spoke.
export function moment(at, now) {
  if (!known(at)) return DASH;
  const date = new Date(at);
  const text = date.toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
  return text + ", " + ago((new Date(now) - date) / 1000);
}

export function ago(seconds) {
  if (seconds < 1) return "just now";
  if (seconds < 60) return Math.floor(seconds) + " s ago";
  if (seconds < 3600) return Math.floor(seconds / 60) + " min ago";
  if (seconds < 172800) return Math.floor(seconds / 3600) + " h ago";
  return Math.floor(seconds / 86400) + " days ago";
}

// Text that is there already is left alone: whoever reads the page aloud would read it again.
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const element = (id) => document.getElementById(id);
