  const byId = function (id) { return document.getElementById(id); };
  const STORED = "annotation name";
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const cache = new Map();  // address -> promise of {kind, url}
  let study = null;
  let name = "";
  let link = "";
  let task = null;
  let shownAt = 0;
  let busy = true;

  function say(text) { byId("status").textContent = text; }
  function complain(text) { byId("problem").textContent = text; byId("problem").hidden = !text; }

  async function ask(path, body) {
    let reply;
    try {
      reply = await fetch(path, body === undefined ? {} : {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
      });
    } catch (error) {
      throw new Error("The server does not answer. Start it again; what was saved is safe.");
    }
    const content = await reply.json().catch(function () { return {}; });
    if (!reply.ok) {
      const problem = new Error(typeof content.detail === "string" ? content.detail : "The server rejected it (" + reply.status + ").");
      problem.status = reply.status;
      throw problem;
    }
    return content;
  }

  function fetchClip(url) {
    if (!cache.has(url)) {
      const loading = fetch(url).then(async function (reply) {
        if (!reply.ok) { throw new Error(((await reply.json().catch(function () { return {}; })).detail) || "it cannot be read"); }
        const content = await reply.blob();
        return { kind: content.type.startsWith("image/") ? "image" : "video", url: URL.createObjectURL(content) };
      });
      loading.catch(function () { cache.delete(url); });
      cache.set(url, loading);
    }
    return cache.get(url);
  }
  function forget(keep) {
    for (const [url, loading] of cache) {
      if (!keep.has(url)) {
        cache.delete(url);
        loading.then(function (clip) { URL.revokeObjectURL(clip.url); }, function () {});
      }
    }
  }

  // A clip in its place; resolves to its element once a picture is there.
  async function show(side, url, label) {
    const screen = byId(side).querySelector(".screen");
    // The page keeps its shape while the next clip comes.
    screen.style.minHeight = screen.offsetHeight + "px";
    screen.replaceChildren();
    byId(side).classList.remove("chosen");
    const clip = await fetchClip(url);
    const element = document.createElement(clip.kind === "image" ? "img" : "video");
    if (clip.kind === "image") {
      element.alt = label;
    } else {
      element.muted = element.loop = element.playsInline = true;
      element.setAttribute("aria-label", label);
      element.preload = "auto";
    }
    await new Promise(function (resolve, reject) {
      element.addEventListener(clip.kind === "image" ? "load" : "canplaythrough", resolve, { once: true });
      element.addEventListener("error", function () { reject(new Error("the browser cannot play it")); }, { once: true });
      element.src = clip.url;
    });
    const width = element.videoWidth || element.naturalWidth;
    const height = element.videoHeight || element.naturalHeight;
    element.classList.toggle("sharp", Math.max(width, height) <= 256);
    screen.replaceChildren(element);
    screen.style.minHeight = "";
    return { wide: width > 1.25 * height };
  }

  function videos() { return Array.from(document.querySelectorAll(".screen video")); }
  function play() {
    videos().forEach(function (video) { video.currentTime = 0; });
    videos().forEach(function (video) { video.play().catch(function () {}); });
  }

  function unshown(side, problem) {
    const text = document.createElement("p");
    text.className = "missing";
    text.textContent = "This clip cannot be shown: " + problem.message;
    byId(side).querySelector(".screen").replaceChildren(text);
  }

  // What stands around a question; false where there is none.
  function frame(state, unit) {
    task = state.task;
    byId("progress").max = Math.max(1, state.total);
    byId("progress").value = state.done;
    byId("count").textContent = state.done + " of " + state.total + " " + unit
      + (task && task.steps > 1 ? ", question " + task.step + " of " + task.steps : "");
    byId("undo").disabled = !state.can_undo;
    byId("tools").hidden = byId("so-far").hidden = false;
    // Who knows which policy leads no longer judges blindly.
    byId("results-link").hidden = study.blind && task !== null;
    byId("skip").hidden = true;
    byId("replay").hidden = !task;
    byId("work").hidden = !task;
    byId("done").hidden = Boolean(task);
    enable(false);
    if (!task) {
      busy = false;
      forget(new Set());
      byId("done-text").focus();
      return false;
    }
    byId("prompt").textContent = task.prompt;
    const box = byId("prompt-box");
    box.scrollTop = 0;
    box.classList.remove("long");
    const long = box.scrollHeight > box.clientHeight + 2;
    box.classList.toggle("long", long);
    if (long) { box.tabIndex = 0; } else { box.removeAttribute("tabindex"); }
    return true;
  }
  // The clips are there: the time of the answer begins.
  function ready(state, focus, moved) {
    if (moved) {
      if (still.matches) { say("Press Space or Play again to see the clips move."); } else { play(); }
    }
    shownAt = performance.now();
    enable(true);
    if (focus) { byId("question").focus(); }
    state.ahead.forEach(function (url) { fetchClip(url).catch(function () {}); });
  }
  function seconds() { return Math.max(0, (performance.now() - shownAt) / 1000); }

  function identifier() {
    return Array.from(crypto.getRandomValues(new Uint8Array(16)), function (byte) { return byte.toString(16).padStart(2, "0"); }).join("");
  }

  async function guarded(work) {
    complain("");
    try {
      await work();
    } catch (error) {
      if (error.status === 409) {
        say("This was answered or changed elsewhere; here is the next one.");
        await refresh();
      } else {
        complain(error.message);
        enable(Boolean(task));
        busy = false;
      }
    }
  }
  async function refresh(focus) {
    await render(await ask("api/next?annotator=" + encodeURIComponent(name)), focus);
  }

  function undo() {
    if (busy || byId("undo").disabled) { return; }
    enable(false);
    guarded(async function () {
      const state = await ask("api/undo", { annotator: name });
      say(state.undone ? "Your last answer was taken back." : "There is nothing to take back.");
      await render(state);
    });
  }

  function begin(given) {
    name = given;
    byId("who").textContent = name;
    byId("name-form").hidden = true;
    byId("change").hidden = Boolean(study.annotator);
    guarded(async function () {
      let state;
      try {
        state = await ask("api/begin", { annotator: name });
      } catch (error) {
        if (error.status === 403) { byId("who").textContent = ""; askName(); }
        throw error;
      }
      link = new URL(state.link, window.location.href).href;
      byId("link").hidden = false;
      try { localStorage.setItem(STORED, name); } catch (error) { /* the name is then asked again after a reload */ }
      await render(state, true);
    });
  }
  function askName() {
    byId("work").hidden = byId("done").hidden = byId("tools").hidden = byId("so-far").hidden = true;
    byId("results-link").hidden = study.blind;
    byId("link").hidden = true;
    byId("name-form").hidden = false;
    byId("name").value = name;
    byId("name").focus();
  }

  byId("undo").addEventListener("click", undo);
  byId("replay").addEventListener("click", play);
  byId("change").addEventListener("click", askName);
  byId("name-form").addEventListener("submit", function (event) {
    event.preventDefault();
    const given = byId("name").value.trim().replace(/\s+/g, " ");
    if (!given) { return; }
    begin(given);
  });
  byId("link").addEventListener("click", function () {
    const copied = navigator.clipboard ? navigator.clipboard.writeText(link) : Promise.reject();
    copied.then(
      function () { say("Your link is copied. Open it in another browser to resume there; do not share it."); },
      function () { say("Open this link in another browser to resume there; do not share it: " + link); }
    );
  });
  document.addEventListener("keydown", function (event) {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.target.closest("input") || event.repeat || !byId("name-form").hidden) { return; }
    if (key === "z" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); undo(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey) { return; }
    if (key === " " && !event.target.closest("button, a, summary")) { event.preventDefault(); play(); return; }
    if (key === "u") { undo(); return; }
    if (pressed(key)) { event.preventDefault(); }
  });

  async function start() {
    try {
      study = await ask("api/study");
    } catch (error) {
      complain(error.message);
      return;
    }
    let stored = null;
    try { stored = localStorage.getItem(STORED); } catch (error) { /* private windows may forbid it */ }
    const given = study.annotator || new URLSearchParams(window.location.search).get("name") || stored;
    if (given) { begin(given); } else { askName(); }
  }
