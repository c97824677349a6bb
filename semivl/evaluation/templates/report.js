const root = document.documentElement, large = document.getElementById("large");
document.getElementById("tint").addEventListener("input", e => root.style.setProperty("--tint", e.target.value / 100));
for (const example of document.querySelectorAll(".example")) example.addEventListener("click", () => {
  large.style.setProperty("--ratio", example.style.getPropertyValue("--ratio"));
  large.style.setProperty("--photo", example.style.getPropertyValue("--photo"));
  large.querySelector(".top span").textContent = example.title + " · " + example.querySelector("b").textContent;
  large.querySelector(".trio").replaceChildren(...[...example.querySelector(".trio").children].map(c => c.cloneNode(true)));
  large.showModal();
});
large.querySelector("button").addEventListener("click", () => large.close());
large.addEventListener("click", e => { if (e.target === large) large.close(); });
for (const wipe of document.querySelectorAll(".wipe")) {
  const slider = wipe.querySelector("input");
  const move = () => {
    wipe.style.setProperty("--at", slider.value + "%");
    slider.setAttribute("aria-valuetext", slider.value + " %");
  };
  slider.addEventListener("input", move);
  move();
}

const list = document.querySelector("nav.tabs"), tabs = [...list.querySelectorAll("a")];
const panelOf = tab => document.getElementById(tab.hash.slice(1));
function select(tab) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", chosen);
    one.tabIndex = chosen ? 0 : -1;
    panelOf(one).hidden = !chosen;
  }
}
function follow() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const panel = target && target.closest(".panel");
  select(tabs.find(tab => panelOf(tab) === panel) || tabs[0]);
  if (panel && panel !== target) target.scrollIntoView();
}
list.setAttribute("role", "tablist");
for (const tab of tabs) {
  tab.setAttribute("role", "tab");
  tab.setAttribute("aria-controls", panelOf(tab).id);
  panelOf(tab).setAttribute("role", "tabpanel");
  panelOf(tab).setAttribute("aria-labelledby", tab.id);
  tab.addEventListener("click", event => {
    event.preventDefault();
    history.replaceState(null, "", tab.hash);
    select(tab);
  });
}
list.addEventListener("keydown", event => {
  const at = tabs.indexOf(document.activeElement);
  const to = {ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1}[event.key];
  if (to === undefined || at < 0) return;
  event.preventDefault();
  const tab = tabs[(to + tabs.length) % tabs.length];
  tab.click();
  tab.focus();
});
addEventListener("hashchange", follow);
follow();
