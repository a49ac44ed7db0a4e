"use strict";

// Numbers as text, as dio-trace/src/figures.rs has them: a test runs both and compares.

const count = n => String(n).replace(/\B(?=(\d{3})+$)/g, ",");
function scaled(n, units) {
  const exact = BigInt(n), whole = unit => (exact + unit / 2n) / unit;
  for (let at = units.length - 1; at > 0; at--) {
    const [unit, name] = units[at], lower = units[at - 1][0];
    if (whole(lower) * lower < unit) continue;
    const tenths = (exact * 10n + unit / 2n) / unit;
    return (tenths < 100n ? tenths / 10n + "." + tenths % 10n : String(whole(unit))) + name;
  }
  return exact + units[0][1];
}
const BYTES = [[1n, ""], [1n << 10n, "K"], [1n << 20n, "M"], [1n << 30n, "G"], [1n << 40n, "T"]];
const TIMES = [[1n, "ns"], [1000n, "us"], [1000000n, "ms"], [1000000000n, "s"],
  [60000000000n, "min"], [3600000000000n, "h"], [86400000000000n, "d"]];
const bytes = n => scaled(n, BYTES);
const duration = ns => ns === null || ns === undefined ? "-" : scaled(ns, TIMES);
function percent(part, whole) {
  if (!whole) return "-";
  const [a, b] = [BigInt(part), BigInt(whole)], tenths = (a * 1000n + b / 2n) / b;
  if (tenths === 0n && a) return "<0.1%";
  if (tenths === 1000n && a < b) return ">99.9%";
  return tenths / 10n + "." + tenths % 10n + "%";
}

// Times, ns since the epoch, in a zone so many seconds east of UTC.
const pad = (n, width) => String(n).padStart(width, "0");
const shifted = (ns, east) => new Date(Math.floor(ns / 1e6) + east * 1000);
function clockAt(ns, east, fine) {
  const at = shifted(ns, east);
  const text = [at.getUTCHours(), at.getUTCMinutes(), at.getUTCSeconds()].map(n => pad(n, 2)).join(":");
  return fine ? text + "." + pad(at.getUTCMilliseconds(), 3) : text;
}
function dayAt(ns, east) {
  const at = shifted(ns, east);
  return pad(at.getUTCFullYear(), 4) + "-" + pad(at.getUTCMonth() + 1, 2) + "-" + pad(at.getUTCDate(), 2);
}
