// Numbers as people read them. Nothing here touches the page. `null` is what the master doesn't know.
const NONE = "–";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const some = new Intl.NumberFormat("en", { maximumFractionDigits: 4 });
const one = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const count = (n) => (n === null ? NONE : whole.format(n));
export const sui = (mist) => (mist === null ? NONE : some.format(mist / 1e9));
export const percent = (n) => (n === null ? NONE : `${whole.format(n)} %`);
export const rate = (n) => (n === null ? NONE : (n < 10 ? one : whole).format(n));
export const milliseconds = (n) => (n === null ? NONE : (n < 10 ? one : whole).format(n));

export function bytes(n) {
  if (n === null) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let at = 0;
  while (n >= 1000 && at < units.length - 1) {
    n /= 1000;
    at += 1;
  }
  return `${(n < 10 && at > 0 ? one : whole).format(n)} ${units[at]}`;
}

// A length of time in its largest unit, two while the first is small: "42 s", "3 min", "5 h", "12 d".
export function span(ms) {
  if (ms === null) return NONE;
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 100) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 129_600) return `${Math.round(s / 3600)} h`;
  return `${whole.format(Math.round(s / 86_400))} d`;
}

// 0x1234…abcd: enough to tell owners apart in a table.
export const short = (text) => (text === null ? NONE : text.length <= 14 ? text : `${text.slice(0, 6)}…${text.slice(-4)}`);
