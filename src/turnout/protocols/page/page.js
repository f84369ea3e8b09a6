"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const main = document.getElementById("main");
  document.getElementById("version").textContent = data.version;

  function make(kind, options = {}, ...children) {
    const element = document.createElement(kind);
    for (const [key, value] of Object.entries(options)) {
      if (key in element) element[key] = value; else element.setAttribute(key, value);
    }
    element.append(...children);
    return element;
  }

  const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";

  function tensors(title, list) {
    const box = make("div", {}, make("h3", { textContent: title }));
    for (const tensor of list) {
      const line = make("div", { className: "tensor" },
        make("code", { textContent: tensor.name }), " ",
        make("span", { className: "quiet", textContent: `${tensor.datatype} [${tensor.shape.join(", ")}]${tensor.optional ? " optional" : ""}` }));
      if (tensor.columns.length) {
        line.append(make("div", { className: "columns" }, ...tensor.columns.map((name) => make("span", { textContent: name }))));
      }
      box.append(line);
    }
    return box;
  }

  function curl(form, body) {
    const parts = ["curl", quoted(location.origin + form.path)];
    parts.push("-H", quoted("Content-Type: " + form.type), "--data-binary", quoted(form.type === "text/csv" ? body : compact(body)));
    return parts.join(" ");
  }

  function compact(text) {
    try { JSON.parse(text); } catch { return text; }
    return text.replace(/\n\s*/g, "");
  }

  function readable(text) {
    if (text.length > 200000) return text.slice(0, 200000) + "\n... cut";
    try { return JSON.stringify(JSON.parse(text), null, 2).replace(/\[\s+([^\[\]{}]*?)\s+\]/g, (_, inner) => "[" + inner.replace(/\s*\n\s*/g, " ") + "]"); }
    catch { return text; }
  }

  async function send(form, body, status, answer, button) {
    button.disabled = true;
    const headers = { "Content-Type": form.type };
    const start = performance.now();
    try {
      const response = await fetch(form.path, { method: "POST", headers, body });
      const text = await response.text();
      const took = (performance.now() - start).toFixed(1);
      status.className = response.ok ? "good" : "bad";
      status.textContent = `${response.status} in ${took} ms`;
      answer.textContent = readable(text);
    } catch (problem) {
      status.className = "bad";
      status.textContent = "no answer";
      answer.textContent = String(problem);
    }
    button.disabled = false;
  }

  function trial(model) {
    const edited = model.forms.map((form) => form.body);
    let current = 0;
    const area = make("textarea", { spellcheck: false, "aria-label": "Request body" });
    const answer = make("pre", { "aria-label": "Answer", "aria-live": "polite", textContent: "The answer will be here." });
    const status = make("span", { className: "quiet" });
    const path = make("code", { className: "quiet" });
    const line = make("pre");
    const button = make("button", { className: "send", type: "button", textContent: "Send" });
    const copy = make("button", { type: "button", textContent: "Copy" });
    const tabs = make("div", { className: "tabs", role: "tablist" });
    const refresh = () => { line.textContent = curl(model.forms[current], area.value); };
    const choose = (index) => {
      current = index;
      area.value = edited[index];
      path.textContent = "POST " + model.forms[index].path;
      [...tabs.children].forEach((tab, place) => tab.setAttribute("aria-selected", String(place === index)));
      refresh();
    };
    model.forms.forEach((form, index) => {
      const tab = make("button", { type: "button", role: "tab", textContent: form.title });
      tab.addEventListener("click", () => choose(index));
      tabs.append(tab);
    });
    area.addEventListener("input", () => { edited[current] = area.value; refresh(); });
    button.addEventListener("click", () => send(model.forms[current], area.value, status, answer, button));
    area.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) button.click(); });
    copy.addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(line.textContent); copy.textContent = "Copied"; }
      catch { getSelection().selectAllChildren(line); }
      setTimeout(() => { copy.textContent = "Copy"; }, 1200);
    });
    choose(0);
    return make("div", { className: "try" }, tabs, make("div", { className: "pair" }, area, answer),
      make("div", { className: "row" }, button, path, status), make("div", { className: "curl" }, line, copy));
  }

  for (const model of data.models) {
    const title = make("div", { className: "title" }, make("h2", { textContent: model.name }));
    if (model.version) title.append(make("span", { className: "quiet", textContent: "version " + model.version }));
    title.append(make("span", { className: "quiet", textContent: model.format }),
      make("span", { className: "badge " + model.state, textContent: model.state.toLowerCase() }));
    const card = make("section", { className: "model", id: "model-" + model.name }, title);
    if (model.reason) card.append(make("p", { className: "reason", textContent: model.reason }));
    card.append(make("div", { className: "tensors" }, tensors("Inputs", model.inputs), tensors("Outputs", model.outputs)), trial(model));
    main.append(card);
  }
  if (!data.models.length) main.append(make("p", { className: "empty", textContent: "No model is served yet." }));
})();
