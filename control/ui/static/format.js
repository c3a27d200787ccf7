// Numbers and times as text. Prices never pass through here: they are exact strings already.

const grouped = new Intl.NumberFormat("en-US");
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

export const count = (value) => grouped.format(value);

export const short = (value) => (value < 10_000 ? grouped.format(value) : compact.format(value));

export function rate(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  if (value < 10) return value.toFixed(1);
  return value < 10_000 ? grouped.format(Math.round(value)) : compact.format(value);
}

export function bytes(value) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let index = 0;
  while (value >= 1000 && index < units.length - 1) { value /= 1000; index += 1; }
  return `${index === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[index]}`;
}

export function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}m ${String(Math.floor(seconds % 60)).padStart(2, "0")}s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours}h ${String(minutes % 60).padStart(2, "0")}m`;
  return `${Math.floor(hours / 24)}d ${hours % 24}h`;
}

// "per minute" reads better than "in 1m 00s".
export function period(seconds) {
  if (seconds === 1) return "s";
  if (seconds === 60) return "min";
  if (seconds === 3600) return "h";
  if (seconds % 3600 === 0) return `${seconds / 3600} h`;
  return seconds % 60 === 0 ? `${seconds / 60} min` : `${seconds} s`;
}

export function lag(milliseconds) {
  if (milliseconds === null) return "–";
  if (milliseconds < 1000) return `${Math.max(0, Math.round(milliseconds / 10) * 10)} ms`;
  if (milliseconds < 10_000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return span(milliseconds / 1000);
}

// "some_venue" is how the API spells it; a person reads "Some venue".
export function venue(name) {
  const words = name.replace(/([a-z0-9])([A-Z])/g, "$1_$2").toLowerCase().replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

// For a column. What is not said is a perpetual: only another market of an exchange has to say so.
export const exchange = (name) => venue(name.replace(/_(linear|perp)$/, ""));

// The one name of a kind that is too long for a column.
export const kind = (name) => (name === "FundingOpenInterest" ? "Funding + OI" : name);

export const transport = (name) => (name === "Ws" ? "WebSocket" : "HTTP poll");
