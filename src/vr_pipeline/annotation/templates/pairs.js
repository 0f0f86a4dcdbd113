  const buttons = Array.from(document.querySelectorAll("[data-choice]"));
  const WORDS = { left: "A is better", right: "B is better", tie: "no difference", both_bad: "both are bad", skip: "cannot say" };

  function enable(yes) {
    busy = !yes;
    buttons.forEach(function (button) { button.disabled = !yes; });
  }

  function question(task) {
    const heading = byId("question");
    heading.replaceChildren();
    if (task.criterion === "overall") { heading.append("Which clip is better overall?"); return; }
    const what = document.createElement("em");
    what.textContent = task.criterion.replaceAll("_", " ");
    heading.append("Which clip is better in ", what, "?");
  }

  async function render(state, focus) {
    const before = task;
    if (!frame(state, "pairs")) { return; }
    question(task);
    document.querySelector("[data-choice=skip]").hidden = !task.can_skip;
    byId("hints").hidden = task.hints.length === 0;
    byId("hint-list").replaceChildren(...task.hints.map(function (hint) {
      const item = document.createElement("li");
      item.textContent = hint;
      return item;
    }));
    const same = before && before.pair === task.pair && before.left.token === task.left.token && videos().length === 2;
    forget(new Set([task.left.url, task.right.url].concat(state.ahead)));
    if (same) {
      byId("left").classList.remove("chosen");
      byId("right").classList.remove("chosen");
    } else {
      const current = task;
      const shown = await Promise.allSettled([show("left", task.left.url, "Clip A"), show("right", task.right.url, "Clip B")]);
      if (current !== task) { return; }
      let failed = false;
      shown.forEach(function (result, index) {
        if (result.status === "rejected") {
          failed = true;
          unshown(index ? "right" : "left", result.reason);
        }
      });
      document.body.classList.toggle("wide", shown.every(function (result) { return result.status === "fulfilled" && result.value.wide; }));
      if (failed) {
        byId("skip").hidden = false;
        busy = false;
        return;
      }
    }
    ready(state, focus, !same);
  }

  // The same identifier goes with every attempt, so that an answer whose reply was lost is not written twice.
  let attempt = null;
  function answer(choice) {
    if (busy || !task || buttons[0].disabled || (choice === "skip" && !task.can_skip)) { return; }
    enable(false);
    const taken = seconds();
    const key = [name, task.pair, task.criterion, choice].join("\n");
    if (!attempt || attempt.key !== key) { attempt = { key: key, label: identifier() }; }
    if (choice === "left" || choice === "right") { byId(choice).classList.add("chosen"); }
    const asked = task;
    guarded(async function () {
      const state = await ask("api/labels", {
        label: attempt.label, annotator: name, pair: asked.pair, criterion: asked.criterion,
        choice: choice, left: asked.left.token, seconds: taken,
      });
      attempt = null;
      say("Saved: " + WORDS[choice] + ". " + state.done + " of " + state.total + " pairs done.");
      await render(state);
    });
  }
  buttons.forEach(function (button) { button.addEventListener("click", function () { answer(button.dataset.choice); }); });
  byId("skip").addEventListener("click", function () {
    guarded(async function () { await render(await ask("api/skip", { annotator: name, pair: task.pair })); });
  });
  const KEYS = {
    ArrowLeft: "left", "1": "left", ArrowRight: "right", "2": "right", ArrowDown: "tie", t: "tie", x: "both_bad", s: "skip",
  };
  function pressed(key) {
    if (!Object.hasOwn(KEYS, key)) { return false; }
    answer(KEYS[key]);
    return true;
  }
  start();
