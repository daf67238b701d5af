// Numbers as people read them.

const known = (value) => typeof value === "number" && Number.isFinite(value);

const digits = (value, most) => value.toLocaleString("en", { maximumSignificantDigits: most });

export const number = (value, most = 3) => (known(value) ? digits(value, most) : "–");

export const count = (value) => (known(value) ? Math.round(value).toLocaleString("en") : "–");

export const percent = (share) => (known(share) ? `${digits(100 * share, 3)} %` : "–");

export const between = ([low, high]) =>
  (known(low) ? `${digits(100 * low, 2)} to ${digits(100 * high, 2)} %` : "–");

export function milliseconds(value) {
  if (!known(value)) return "–";
  return value >= 1000 ? `${digits(value / 1000, 3)} s` : `${digits(value, 3)} ms`;
}

export function hours(value) {
  if (!known(value)) return "unknown";
  const [most, unit] = value < 1 ? [60 * value, "minute"]
    : value < 48 ? [value, "hour"] : [value / 24, "day"];
  const whole = Math.max(0, Math.round(most));
  return `${whole} ${unit}${whole === 1 ? "" : "s"}`;
}

export const time = (seconds) => new Date(1000 * seconds).toLocaleString(undefined,
  { dateStyle: "short", timeStyle: "medium" });
