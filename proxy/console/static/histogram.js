// Quantiles and rates from Prometheus counters as they grow between two scrapes.

/** The buckets of what came after an earlier scrape; all of them where the counters began anew. */
export function since(later, earlier) {
  const counts = later.counts.map((count, at) => count - (earlier?.counts[at] ?? 0));
  const begunAnew = counts.some((count) => count < 0);
  return { le: later.le, counts: begunAnew ? later.counts : counts };
}

export const total = (histogram) => histogram.counts.at(-1) ?? 0;

/**
 * The q-quantile, linear within its bucket as Prometheus' histogram_quantile has it; null where
 * nothing was counted, the last bound where it lies beyond.
 */
export function quantile({ le, counts }, q) {
  const all = counts.at(-1);
  if (!all) return null;
  const rank = q * all;
  const at = counts.findIndex((count) => count >= rank);
  if (le[at] === null) return le.at(-2) ?? null;
  const [below, from] = at === 0 ? [0, 0] : [counts[at - 1], le[at - 1]];
  const inside = counts[at] - below;
  return inside > 0 ? from + ((le[at] - from) * (rank - below)) / inside : le[at];
}

/** Growth by second; null where a counter began anew. */
export function rate(later, earlier, seconds) {
  return later >= earlier && seconds > 0 ? (later - earlier) / seconds : null;
}
