// What the map and the search share. Texts of rows reach the page as data, and are shown with textContent only.
"use strict";

const by = (id) => document.getElementById(id);
const formatted = (number) => number.toLocaleString("en");

async function decode(id) {
  const letters = atob(by(id).textContent);
  const bytes = new Uint8Array(letters.length);
  for (let at = 0; at < letters.length; at++) bytes[at] = letters.charCodeAt(at); // Uint8Array.from takes many times as long
  const whole = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(whole).text());
}

function make(tag, text, name) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (name) node.className = name;
  return node;
}

// what scrolls sideways can be reached with the keyboard
const sideways = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
document.querySelectorAll("figure, .scroll").forEach((node) => sideways.observe(node));

// a link to a fold opens it
function unfold() {
  const place = location.hash.length > 1 && by(location.hash.slice(1));
  if (place && place.tagName === "DETAILS") place.open = true;
}
addEventListener("hashchange", unfold);
unfold();

