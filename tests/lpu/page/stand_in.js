// Runs the script of a page with stand-ins for the browser and for Plotly: node stand_in.js PAGE UNIT...
// Prints, for each choice of UNIT, what the rows of the block would be drawn as.
const html = require("fs").readFileSync(process.argv[2], "utf8"), units = process.argv.slice(3);
const held = (id) => html.match(new RegExp(`id="${id}">([^<]*)<`))[1];
const made = new Map(), drawn = {};
const element = (id) => {
  if (!made.has(id)) made.set(id, {
    textContent: ["data", "library"].includes(id) ? held(id) : "", value: "", style: {}, tBodies: [{ replaceChildren() {} }],
    add() {}, replaceChildren() { this.value = "all"; }, addEventListener() {}, scrollIntoView() {},
  });
  return made.get(id);
};
globalThis.document = {
  getElementById: element, documentElement: { dataset: {} }, body: { dataset: {} }, querySelectorAll: () => [],
  head: { append: (script) => setTimeout(script.onload, 0) }, createElement: () => ({ insertCell: () => ({}) }),
};
globalThis.Option = class {};
globalThis.getComputedStyle = () => ({ getPropertyValue: () => "" });
globalThis.matchMedia = () => ({ matches: false });
globalThis.requestAnimationFrame = (next) => setTimeout(next, 0);
globalThis.addEventListener = () => {};
globalThis.IntersectionObserver = class { observe() {} };
globalThis.Plotly = { react: async (id, data, layout) => { drawn[id] = { data, layout }; } };
URL.createObjectURL = () => "";
URL.revokeObjectURL = () => {};
eval(html.match(/<script>([^]*?)<\/script>/)[1]);
(async () => {
  while (!document.body.dataset.ready) await new Promise((done) => setTimeout(done, 10));
  const out = {};
  for (const unit of units) {
    element("unit").value = unit;
    await globalThis.lpu.rows();
    const { data, layout } = drawn["plot-rows"];
    out[unit] = { said: element("rows-said").textContent, lines: layout.yaxis.ticktext, bars: data.flatMap((one) => (one.text && one.name !== "waits" ? one.y : [])) };
  }
  console.log(JSON.stringify(out));
})();
