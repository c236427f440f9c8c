// What pages do without asking the server: the theme, copy buttons, table filters, and times that go on.
(() => {
  "use strict";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const CHOICES = ["auto", "light", "dark"];

  const choice = () => (document.cookie.match(/(?:^|; )wap_theme=(light|dark)(?:;|$)/) || [])[1] || "auto";

  function paint() {
    const chosen = choice();
    root.dataset.choice = chosen;
    root.dataset.theme = chosen === "auto" ? (system.matches ? "dark" : "light") : chosen;
    if (window.Quasar && window.Quasar.Dark) window.Quasar.Dark.set(root.dataset.theme === "dark");
    for (const button of document.querySelectorAll("[data-theme-toggle]")) {
      button.setAttribute("aria-label", `Theme: ${chosen}. Change`);
      button.title = `Theme: ${chosen}`;
    }
  }

  function nextTheme() {
    const next = CHOICES[(CHOICES.indexOf(choice()) + 1) % CHOICES.length];
    const age = next === "auto" ? 0 : 31536000;
    document.cookie = `wap_theme=${next}; path=/; max-age=${age}; samesite=lax`;
    paint();
  }

  async function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    const text = source ? source.textContent : "";
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // no clipboard without TLS: select and copy as by hand
      const area = Object.assign(document.createElement("textarea"), { value: text });
      area.className = "offscreen";
      (button.closest('[role="dialog"]') || document.body).append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.dataset.done = "yes";
    const label = button.querySelector("[data-label]");
    if (label) label.textContent = "Copied";
    setTimeout(() => {
      delete button.dataset.done;
      if (label) label.textContent = "Copy";
    }, 1600);
  }

  function filter(input) {
    const table = document.getElementById(input.dataset.filter);
    if (!table) return;
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of table.querySelectorAll("tbody > tr")) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  }

  function duration(seconds) {
    const s = Math.max(0, Math.floor(seconds));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, "0")} s`;
    if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
    return `${Math.floor(s / 86400)} d`;
  }

  function rough(seconds) {
    const s = Math.abs(seconds);
    for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
      if (s >= 2 * size) return `${Math.floor(s / size)} ${unit}`;
    }
    return `${Math.floor(s)} s`;
  }

  const STAMP = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  let lead = 0;  // seconds that the server's clock is ahead of this one

  function setText(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function tick() {
    const clock = document.querySelector("[data-server-now]");
    if (clock && !clock.dataset.read) {
      clock.dataset.read = "yes";
      lead = Number(clock.dataset.serverNow) - Date.now() / 1000;
    }
    const now = Date.now() / 1000 + lead;
    for (const one of document.querySelectorAll("[data-since]")) setText(one, duration(now - Number(one.dataset.since)));
    for (const one of document.querySelectorAll("[data-moment]")) {
      const moment = Number(one.dataset.moment);
      const past = now - moment;
      setText(one, past >= 0 ? `${rough(past)} ago` : `in ${rough(past)}`);
      if (!one.title) one.title = STAMP.format(new Date(moment * 1000));
    }
    for (const one of document.querySelectorAll("[data-stamp]")) {
      setText(one, STAMP.format(new Date(Number(one.dataset.stamp) * 1000)));
    }
    for (const chart of document.querySelectorAll("[data-from]")) stretch(chart, now);
    for (const input of document.querySelectorAll("input[data-filter]")) if (input.value) filter(input);
  }

  // Bars of running steps grow between two messages of the server.
  function stretch(chart, now) {
    const from = Number(chart.dataset.from);
    const to = chart.dataset.to ? Number(chart.dataset.to) : now;
    const whole = Math.max(to - from, 0.5);
    for (const bar of chart.querySelectorAll("[data-start]")) {
      const start = Number(bar.dataset.start);
      const end = bar.dataset.end ? Number(bar.dataset.end) : now;
      bar.style.left = `${Math.min(100, Math.max(0, ((start - from) / whole) * 100))}%`;
      bar.style.width = `${Math.min(100, Math.max(0, ((end - start) / whole) * 100))}%`;
    }
  }

  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (!target) return;
    if (target.closest("[data-theme-toggle]")) nextTheme();
    const button = target.closest("[data-copy]");
    if (button) copy(button);
  });
  document.addEventListener("input", (event) => {
    if (event.target instanceof HTMLInputElement && event.target.dataset.filter) filter(event.target);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.closest("input, textarea, select, [contenteditable]")) return;
    const input = document.querySelector("input[data-filter]");
    if (input) {
      event.preventDefault();
      input.focus();
    }
  });
  // Arrow keys move between the choices of a group, as radio buttons do.
  document.addEventListener("keydown", (event) => {
    const group = event.target instanceof Element && event.target.closest('[role="radiogroup"]');
    if (!group || !["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"].includes(event.key)) return;
    const all = [...group.querySelectorAll('[role="radio"]')];
    const step = event.key === "ArrowRight" || event.key === "ArrowDown" ? 1 : -1;
    const next = all[(all.indexOf(document.activeElement) + step + all.length) % all.length];
    event.preventDefault();
    next.focus();
    next.click();
  });
  system.addEventListener("change", paint);
  document.addEventListener("DOMContentLoaded", () => {
    paint();
    new MutationObserver(() => requestAnimationFrame(tick)).observe(document.body, { childList: true, subtree: true });
    setInterval(tick, 1000);
  });
  paint();
})();
