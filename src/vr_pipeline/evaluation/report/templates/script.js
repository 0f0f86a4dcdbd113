"use strict";
(function () {
  // Tables: a button in every heading sorts the rows; rows without a value stay last.
  function valueOf(row, column) {
    const cell = row.cells[column];
    const text = cell.dataset.sort !== undefined ? cell.dataset.sort : cell.textContent.trim();
    const number = Number(text);
    return text === "" || text === "\u2013" ? null : Number.isNaN(number) ? text : number;
  }
  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") { return a - b; }
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }
  document.querySelectorAll("table.sortable").forEach(function (table) {
    const body = table.tBodies[0];
    if (body.rows.length < 2) { return; }
    Array.from(table.tHead.rows[0].cells).forEach(function (heading, column, headings) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", function () {
        const fresh = heading.getAttribute("aria-sort");
        const number = heading.classList.contains("number");
        // Numbers start with the largest, words with the first.
        const direction = fresh === null ? (number ? "descending" : "ascending")
          : fresh === "ascending" ? "descending" : "ascending";
        headings.forEach(function (other) { other.removeAttribute("aria-sort"); });
        heading.setAttribute("aria-sort", direction);
        const sign = direction === "ascending" ? 1 : -1;
        Array.from(body.rows)
          .map(function (row) { return { row: row, value: valueOf(row, column) }; })
          .sort(function (a, b) {
            if (a.value === null || b.value === null) { return (a.value === null) - (b.value === null); }
            return sign * compare(a.value, b.value);
          })
          .forEach(function (entry) { body.append(entry.row); });
      });
    });
  });

  // Clips: those of a row start together when it comes into view, unless the reader wants less motion or paused them.
  const SHORT = 4; // seconds; shorter clips need no timeline, and a browser's own controls would cover them
  const rows = Array.from(document.querySelectorAll(".clip-set")).filter(function (row) {
    return row.querySelector("video");
  }).map(function (element) {
    return { element: element, videos: Array.from(element.querySelectorAll("video")), button: null, paused: false };
  });
  if (!rows.length) { return; }
  let automatic = !window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  function show(row) {
    const playing = row.videos.some(function (video) { return !video.paused; });
    row.button.textContent = playing ? "Pause" : "Play";
  }
  function play(row) {
    row.videos.forEach(function (video) { video.currentTime = 0; });
    row.videos.forEach(function (video) {
      const promise = video.play();
      if (promise) {
        promise.catch(function () { video.controls = true; /* it may not start by itself here */ });
      }
    });
  }
  function pause(row) {
    row.videos.forEach(function (video) { video.pause(); });
  }
  function toggle(row) {
    row.paused = row.videos.some(function (video) { return !video.paused; });
    (row.paused ? pause : play)(row);
  }
  rows.forEach(function (row) {
    row.button = document.createElement("button");
    row.button.type = "button";
    row.button.className = "toggle";
    row.button.setAttribute("aria-label", "Play or pause the clips of: " + row.element.querySelector("h3").textContent);
    row.button.addEventListener("click", function () { toggle(row); });
    row.element.querySelector(".note").prepend(row.button);
    row.videos.forEach(function (video) {
      video.addEventListener("play", function () { show(row); });
      video.addEventListener("pause", function () { show(row); });
      if (Number(video.dataset.seconds) < SHORT) {
        video.controls = false;
        video.addEventListener("click", function () { toggle(row); });
      }
    });
    show(row);
  });
  document.getElementById("clip-buttons").hidden = false;
  document.getElementById("play-all").addEventListener("click", function () {
    automatic = true;
    rows.forEach(function (row) { row.paused = false; play(row); });
  });
  document.getElementById("pause-all").addEventListener("click", function () {
    automatic = false;
    rows.forEach(pause);
  });
  const slow = document.getElementById("slow");
  slow.addEventListener("click", function () {
    const on = slow.getAttribute("aria-pressed") !== "true";
    slow.setAttribute("aria-pressed", String(on));
    rows.forEach(function (row) {
      row.videos.forEach(function (video) { video.playbackRate = on ? 0.25 : 1; });
    });
  });
  if ("IntersectionObserver" in window) {
    const byElement = new Map(rows.map(function (row) { return [row.element, row]; }));
    const observer = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) {
        const row = byElement.get(entry.target);
        if (!automatic || row.paused) { return; }
        (entry.isIntersecting ? play : pause)(row);
      });
    }, { threshold: 0.25 });
    rows.forEach(function (row) { observer.observe(row.element); });
  }
})();
