// What a threshold would have done with recorded scores: pure arithmetic, run while one drags.

/** Only a score that is at most the threshold passes; null: there was no score. */
export const flags = (score, threshold) => score !== null && !(score <= threshold);

/** Scores in order, so that each place on the slider costs a few comparisons. */
export const ordered = (scores) => scores.filter((score) => score !== null).sort((a, b) => a - b);

/** How many of ordered scores lie above a threshold. */
export function above(sorted, threshold) {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] <= threshold) low = middle + 1;
    else high = middle;
  }
  return sorted.length - low;
}

export const share = (sorted, threshold) =>
  (sorted.length ? above(sorted, threshold) / sorted.length : null);

/**
 * 95 % interval of a share, k of n.
 * Source: Wilson, J. Am. Stat. Assoc. 22 (1927), the score interval.
 */
export function interval(k, n) {
  if (!n) return [null, null];
  const z = 1.959964;
  const middle = (k + (z * z) / 2) / (n + z * z);
  const half = (z / (n + z * z)) * Math.sqrt((k * (n - k)) / n + (z * z) / 4);
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

/** The samples whose verdict would be another than the one they got. */
export function changes(live, threshold) {
  const found = [];
  live.fused.forEach((score, at) => {
    if (score === null || live.verdict[at] === "failed") return;
    const now = flags(score, threshold);
    if (now !== (live.verdict[at] === "suspicious")) found.push({ id: live.ids[at], now });
  });
  return found;
}

/** The place in a rising list nearest to a value, in proportion. */
export function nearest(list, value) {
  const apart = list.map((each) => Math.abs(Math.log(each / value)));
  return apart.indexOf(Math.min(...apart));
}
