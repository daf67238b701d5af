// Charts by Plotly, loaded when the first one is wanted; the page is complete without them.

export const NO_CHARTS = "For charts: pip install 'breakwater[console]' and restart the proxy. "
  + "The tables have the same figures.";

let library;

function load() {
  library ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "plotly.js";
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error(NO_CHARTS));
    document.head.append(script);
  });
  return library;
}

const colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Okabe and Ito's colours, told apart by most colour-blind people; dashes and names tell them too.
export const COLOURS =
  ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a"];
export const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];

/** Names come from files: Plotly reads a little markup in them unless it is escaped. */
export const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");

function layout(options) {
  const axis = {
    gridcolor: colour("line"),
    linecolor: colour("faint"),
    zerolinecolor: colour("line"),
    automargin: true,
    fixedrange: true,
  };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("text"), family: "system-ui, sans-serif", size: 13 },
    margin: { l: 48, r: 12, t: 8, b: 40 },
    legend: { orientation: "h", y: -0.25 },
    ...options,
    xaxis: { ...axis, ...options.xaxis },
    yaxis: { ...axis, ...options.yaxis },
  };
}

const drawn = new Map();

/** Draw, or draw anew. The node is shown once there is a chart. False: there are no charts. */
export async function draw(node, label, traces, options) {
  let plotly;
  try {
    plotly = await load();
  } catch {
    return false;
  }
  drawn.set(node, [label, traces, options]);
  node.hidden = false;
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", label);
  const config = { displayModeBar: false, responsive: true };
  await plotly.react(node, traces, layout(options), config);
  return true;
}

const moving = new Map();

/** Move the upright line of a chart, if it is drawn; once a frame at most, after the numbers. */
export function mark(node, x) {
  if (!drawn.has(node)) return;
  if (!moving.has(node)) {
    requestAnimationFrame(() => setTimeout(() => {
      const to = moving.get(node);
      moving.delete(node);
      window.Plotly.relayout(node, { "shapes[0].x0": to, "shapes[0].x1": to });
    }));
  }
  moving.set(node, x);
}

export const upright = (x) => ({ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1,
  line: { color: colour("accent"), width: 3 } });

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const [node, [label, traces, options]] of drawn) draw(node, label, traces, options);
});
