// Search runs in a worker, and browsers start none for pages opened from disk. Then a hidden frame does the work.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.onmessage = null;
      this.onerror = null;
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "Search";
      // Scripts within the frame find what a worker has: postMessage to the page, and importScripts.
      frame.srcdoc = "<!doctype html><script>" +
        "var postMessage = function (data) { parent.postMessage({worker: data}, '*') };" +
        "var importScripts = function () { return Promise.all(Array.from(arguments, function (source) {" +
        "return new Promise(function (resolve) { var script = document.createElement('script');" +
        "script.src = source; script.onload = resolve; document.head.appendChild(script) }) })) };" +
        "<\/script><script src=\"" + new URL(address, location.href) + "\"><\/script>";
      frame.addEventListener("load", () => {
        this.frame = frame.contentWindow;
        this.waiting.splice(0).forEach((data) => this.postMessage(data));
      });
      window.addEventListener("message", (event) => {
        if (event.source !== frame.contentWindow || !event.data || !("worker" in event.data)) { return; }
        const message = new MessageEvent("message", {data: event.data.worker});
        if (this.onmessage) { this.onmessage(message); }
        this.dispatchEvent(message);
      });
      document.body.appendChild(frame);
    }

    postMessage(data) {
      if (this.frame) { this.frame.dispatchEvent(new MessageEvent("message", {data})); } else { this.waiting.push(data); }
    }

    terminate() {}
  };
}
