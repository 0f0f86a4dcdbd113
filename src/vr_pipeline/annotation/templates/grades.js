  const REASONS = ["The clip does not show it", "Cannot be told", "The options do not fit"];
  let options = [];  // buttons, best first
  let after = null;  // the state that follows a training answer once its right one was read
  let attempt = null;

  function enable(yes) {
    busy = !yes;
    options.forEach(function (button) { button.disabled = !yes; });
    byId("pass").disabled = !yes;
    if (!yes) { byId("reasons").hidden = true; }
  }
  function element(tag, kind, text) {
    const made = document.createElement(tag);
    made.className = kind;
    made.textContent = text;
    return made;
  }
  function percent(share) { return Math.round(100 * share) + " %"; }

  function option(one, place, count) {
    const button = element("button", "option", "");
    button.type = "button";
    const words = element("span", "words", one.text);
    const key = count - place;
    button.append(element("kbd", "", key < 10 ? String(key) : ""), words);
    if (key < 10) { button.setAttribute("aria-keyshortcuts", String(key)); }
    if (one.example) { words.append(element("span", "example", "For example: " + one.example)); }
    if (one.url) {
      fetchClip(one.url).then(function (clip) {
        const shown = element(clip.kind === "image" ? "img" : "video", "", "");
        if (clip.kind === "image") { shown.alt = "Example"; } else { shown.muted = shown.loop = shown.playsInline = true; shown.autoplay = !still.matches; }
        shown.src = clip.url;
        button.append(shown);
      }, function () {});
    }
    button.addEventListener("click", function () { answer(one.grade, ""); });
    return button;
  }

  function phase(state) {
    const training = state.training;
    const box = byId("phase");
    if (task && task.training) {
      const again = training.failed ? percent(training.share) + " were right, " + percent(training.needed) + " are needed: once more. " : "";
      box.textContent = again + "Training, round " + training.round + " of " + training.rounds
        + ": after each answer you see the right one. With " + percent(training.needed) + " right you continue with the clips.";
    }
    box.hidden = !(task && task.training);
    byId("done-text").textContent = training && !training.passed
      ? percent(training.share) + " of the training's answers were right, " + percent(training.needed) + " are needed. Ask whoever runs the study."
      : "Nothing is left to grade for now. Thank you.";
  }

  async function render(state, focus) {
    const before = task;
    const running = frame(state, state.task && state.task.training ? "training clips" : "clips");
    phase(state);
    if (before && before.training && state.training && state.training.passed) {
      say("Training passed: " + percent(state.training.share) + " were right. Here are the clips.");
    }
    byId("feedback").hidden = true;
    if (!running) { return; }
    byId("question").textContent = task.question;
    options = task.options.map(function (one, place) { return option(one, place, task.options.length); });
    byId("options").replaceChildren(...options);
    window.scrollTo(0, 0);  // on phones the clip stays in place above, and would cover the question
    enable(false);
    const same = before && before.item === task.item && byId("clip").querySelector("video, img");
    const examples = task.options.map(function (one) { return one.url; }).filter(Boolean);
    forget(new Set([task.url].concat(examples, state.ahead)));
    if (!same) {
      const current = task;
      try {
        const shown = await show("clip", task.url, "The clip");
        document.body.classList.toggle("wide", shown.wide);
      } catch (problem) {
        if (current === task) {
          unshown("clip", problem);
          byId("skip").hidden = false;
          busy = false;
        }
        return;
      }
      if (current !== task) { return; }
    }
    ready(state, focus, !same);
  }

  // The same identifier goes with every attempt, so that an answer whose reply was lost is not written twice.
  function answer(grade, reason) {
    if (busy || !task || after) { return; }
    const taken = seconds();
    enable(false);
    const key = [name, task.item, task.criterion, grade, reason].join("\n");
    if (!attempt || attempt.key !== key) { attempt = { key: key, label: identifier() }; }
    const asked = task;
    guarded(async function () {
      const state = await ask("api/labels", {
        label: attempt.label, annotator: name, item: asked.item, criterion: asked.criterion,
        grade: grade, reason: reason, seconds: taken,
      });
      attempt = null;
      const chosen = asked.options.find(function (one) { return one.grade === grade; });
      say("Saved: " + (chosen ? chosen.text : "skipped, " + reason) + ".");
      if (state.feedback) { correct(asked, grade, state); } else { await render(state); }
    });
  }
  function correct(asked, grade, state) {
    after = state;
    let text = "";
    asked.options.forEach(function (one, place) {
      options[place].classList.toggle("right", one.grade === state.feedback.grade);
      options[place].classList.toggle("wrong", one.grade === grade && !state.feedback.right);
      if (one.grade === state.feedback.grade) { text = one.text; }
    });
    byId("verdict").textContent = state.feedback.right ? "Right." : "The right answer is: " + text;
    byId("feedback").classList.toggle("wrong", !state.feedback.right);
    byId("feedback").hidden = false;
    busy = false;
    byId("continue").focus();
    byId("feedback").scrollIntoView({ block: "nearest" });
  }
  function proceed() {
    const state = after;
    if (!state) { return; }
    after = null;
    guarded(async function () { await render(state); });
  }

  function askReason() {
    if (busy || !task || after) { return; }
    byId("reasons").hidden = !byId("reasons").hidden;
    if (!byId("reasons").hidden) {
      byId("reasons").querySelector("button").focus();
      byId("reasons").scrollIntoView({ block: "nearest" });
    }
  }
  byId("reason-list").append(...REASONS.map(function (reason, place) {
    const button = element("button", "", reason + " ");
    button.type = "button";
    button.append(element("kbd", "", String(place + 1)));
    button.addEventListener("click", function () { answer("", reason); });
    return button;
  }));
  byId("reason-form").addEventListener("submit", function (event) {
    event.preventDefault();
    const given = byId("reason").value.trim();
    if (given) { byId("reason").value = ""; answer("", given); }
  });
  byId("pass").addEventListener("click", askReason);
  byId("continue").addEventListener("click", proceed);
  byId("skip").addEventListener("click", function () {
    guarded(async function () {
      await render(await ask("api/skip", { label: identifier(), annotator: name, item: task.item, reason: "The clip cannot be shown" }));
    });
  });

  function pressed(key) {
    if (after) {
      if (key === "Enter" && document.activeElement !== byId("continue")) { proceed(); return true; }
      return false;
    }
    const reasons = !byId("reasons").hidden;
    if (key === "Escape" && reasons) { byId("reasons").hidden = true; byId("question").focus(); return true; }
    if (key === "s") { askReason(); return true; }
    if (/^[1-9]$/.test(key)) {
      const number = Number(key);
      if (reasons) { if (number <= REASONS.length) { answer("", REASONS[number - 1]); } return true; }
      if (number <= options.length && !busy) { options[options.length - number].click(); }
      return true;
    }
    if ((key === "ArrowUp" || key === "ArrowDown") && !reasons && options.length) {
      const place = options.indexOf(document.activeElement);
      const next = key === "ArrowDown" ? place + 1 : place < 0 ? options.length - 1 : place - 1;
      options[(next + options.length) % options.length].focus();
      return true;
    }
    return false;
  }
  start();
