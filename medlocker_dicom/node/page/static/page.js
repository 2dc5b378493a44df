// Keeps the overview up to date; without this script it shows what it showed when it was loaded.
"use strict";

const state = document.querySelector('[data-text="state"]');
const source = new EventSource("/events");

source.onmessage = (event) => {
  const { texts, shown } = JSON.parse(event.data);
  for (const element of document.querySelectorAll("[data-text]")) {
    const text = texts[element.dataset.text];
    if (text !== undefined && element.textContent !== text) {
      element.textContent = text;
    }
  }
  for (const element of document.querySelectorAll("[data-shown]")) {
    const visible = shown[element.dataset.shown];
    if (visible !== undefined) {
      element.hidden = !visible;
    }
  }
};

source.onerror = () => {
  state.textContent = source.readyState === EventSource.CLOSED
    ? "no longer up to date: load this page again"
    : "not up to date: the node does not answer";
};
