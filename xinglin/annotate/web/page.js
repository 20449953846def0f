// The judging page. Keys and buttons change `state`, `show` draws it, `send` saves it. Plain ES2017: no build, no library.
//
// What a doctor entered is never lost: `state` is kept in localStorage under the item's lease until the server has
// acknowledged it, and a vote that could not be sent is kept with its client id and sent again, here or on any later
// page. Texts of models are only ever put in as text nodes; positions in them count characters, not UTF-16 units.
"use strict";
(function () {
  const page = JSON.parse(document.body.dataset.page || "{}");
  const words = page.words || {};
  const one = (selector, within) => (within || document).querySelector(selector);
  const all = (selector, within) => Array.from((within || document).querySelectorAll(selector));
  const say = (name, values) => (words[name] || name).replace(/\{(\w+)\}/g, (_, key) => (values || {})[key]);

  entrance();
  all(".unfold").forEach((button) => button.addEventListener("click", () => fold(button)));
  all("[data-confirm]").forEach((button) =>
    button.addEventListener("click", (event) => window.confirm(button.dataset.confirm) || event.preventDefault()));
  if (!page.lease) return;

  const k = page.k, IDLE = 60000, DAY = 86400000;
  const targets = ["overall"].concat(page.dimensions.map((dimension) => dimension.name));
  const texts = all(".answer").map(cells);
  let state = empty(), target = "overall", tie = false, trail = {}, cursor = 0, picker = null, asking = null;
  let started = Date.now(), events = [], sending = false, left = false, timer = 0, wait = 2000, storage = true, selected = null;

  restore();
  listen();
  show();
  setInterval(clock, 1000);
  setInterval(keepLease, 300000);
  flush();
  const note = sessionNote();
  if (note) tell(note);

  function empty() {
    return { ranks: {}, scores: {}, danger: [], rewrites: {}, comment: "" };
  }

  // --- texts ---------------------------------------------------------------------------------------------------------

  // The characters of an answer as [character, name of its mark], out of what the server escaped.
  function cells(element) {
    const found = [];
    element.childNodes.forEach((node) => {
      if (node.nodeType === 3) Array.from(node.data).forEach((character) => found.push([character, null]));
      else for (let n = 0; n < Number(node.dataset.n); n++) found.push([String.fromCodePoint(parseInt(node.dataset.u, 16)), n ? "" : node.dataset.c]);
    });
    return found;
  }

  // Draw an answer anew, with the danger spans and the sentence that is being chosen.
  function paint(answer) {
    const edges = new Set([0, texts[answer].length]);
    const spans = state.danger.filter((span) => span[0] === answer);
    if (picker && picker.answer === answer) spans.push([answer, picker.start, picker.end, "picked"]);
    spans.forEach((span) => edges.add(span[1]).add(span[2]));
    const sorted = Array.from(edges).sort((a, b) => a - b), fragment = document.createDocumentFragment();
    for (let n = 0; n + 1 < sorted.length; n++) {
      const inside = spans.filter((span) => span[1] <= sorted[n] && span[2] >= sorted[n + 1]);
      const holder = inside.length ? document.createElement(inside.some((span) => !span[3]) ? "mark" : "span") : fragment;
      if (inside.length) {
        if (inside.some((span) => span[3])) holder.className = "picked";
        fragment.appendChild(holder);
      }
      write(holder, texts[answer].slice(sorted[n], sorted[n + 1]));
    }
    const element = all(".answer")[answer];
    element.textContent = "";
    element.appendChild(fragment);
  }

  function write(holder, run) {
    let plain = "";
    run.forEach((cell) => {
      if (cell[1] === null) plain += cell[0];
      else {
        if (plain) holder.appendChild(document.createTextNode(plain));
        plain = "";
        const mark = document.createElement("i");
        mark.className = "c";
        mark.dataset.c = cell[1];
        mark.dataset.u = cell[0].codePointAt(0).toString(16);
        mark.dataset.n = "1";
        holder.appendChild(mark);
      }
    });
    if (plain) holder.appendChild(document.createTextNode(plain));
  }

  function plainText(answer) {
    return texts[answer].map((cell) => cell[0]).join("");
  }

  // How many characters of an answer stand before a point of the document.
  function offset(element, node, at) {
    const range = document.createRange();
    range.selectNodeContents(element);
    range.setEnd(node, at);
    const part = range.cloneContents();
    return Array.from(part.textContent).length + all(".c", part).reduce((sum, mark) => sum + Number(mark.dataset.n), 0);
  }

  // The selected span of one answer, or null.
  function selection() {
    const chosen = window.getSelection();
    if (!chosen || !chosen.rangeCount || chosen.isCollapsed) return null;
    const range = chosen.getRangeAt(0), elements = all(".answer");
    const answer = elements.findIndex((element) => element.contains(range.startContainer));
    if (answer < 0) return null;
    const element = elements[answer];
    const start = offset(element, range.startContainer, range.startOffset);
    const end = element.contains(range.endContainer) ? offset(element, range.endContainer, range.endOffset) : texts[answer].length;
    return end > start ? { answer, start, end } : null;
  }

  function sentences(answer) {
    const found = [];
    let start = 0;
    texts[answer].forEach((cell, n) => {
      if ("。！？；!?;\n".indexOf(cell[0]) >= 0 || n + 1 === texts[answer].length) {
        if (texts[answer].slice(start, n + 1).some((one) => one[0].trim())) found.push([start, n + 1]);
        start = n + 1;
      }
    });
    return found;
  }

  function fold(button) {
    const folded = button.previousElementSibling.classList.toggle("folded");
    button.textContent = folded ? button.dataset.text : words.fold || "▲";
    if (folded) button.previousElementSibling.scrollIntoView({ block: "nearest" });
  }

  // --- what the doctor says ------------------------------------------------------------------------------------------

  function ranks(name) {
    return state.ranks[name] || (state.ranks[name] = new Array(k).fill(0));
  }

  function choose(value) {
    state.ranks[target] = value === 0 ? [1, 1] : value === 1 ? [1, 2] : [2, 1];
    changed();
  }

  // An answer's number was pressed: it takes the next place, or shares the last one after "=".
  function press(answer) {
    const places = ranks(target), steps = trail[target] || (trail[target] = []);
    if (places[answer]) return;
    const last = Math.max.apply(null, places);
    places[answer] = tie && last ? last : last + 1;
    steps.push(answer);
    tie = false;
    changed();
  }

  function place(answer, value) {
    const places = ranks(target);
    places[answer] = places[answer] === value ? 0 : value;
    trail[target] = [];
    changed();
  }

  function back() {
    if (page.form === "scores") {
      cursor = Math.max(0, cursor - 1);
      const ability = page.abilities[Math.floor(cursor / k)].name;
      if (state.scores[ability]) state.scores[ability][cursor % k] = 0;
    } else if (page.form === "rank" && (trail[target] || []).length) ranks(target)[trail[target].pop()] = 0;
    else delete state.ranks[target];
    tie = false;
    changed();
  }

  function score(ability, answer, value) {
    (state.scores[ability] || (state.scores[ability] = new Array(k).fill(0)))[answer] = value;
    cursor = page.abilities.findIndex((one) => one.name === ability) * k + answer + 1;
    cursor = Math.min(cursor, page.abilities.length * k);
    changed();
    follow();
  }

  function move(step) {
    cursor = Math.max(0, Math.min(cursor + step, page.abilities.length * k - 1));
    show();
    follow();
  }

  // Keep the row of the cursor above the bar.
  function follow() {
    const cell = one(".scores td.now");
    if (!cell) return;
    const low = one("#bar").getBoundingClientRect().top, box = cell.getBoundingClientRect();
    if (box.bottom > low - 60 || box.top < 60) window.scrollBy(0, box.bottom - low + 140);
  }

  // Mark a span as dangerous; a span that touches a mark takes it away.
  function mark(span) {
    const kept = state.danger.filter((old) => old[0] !== span.answer || old[2] <= span.start || old[1] >= span.end);
    if (kept.length < state.danger.length) tell(say("unmarked"));
    else if (kept.length >= 200) return tell(say("too_many"));
    else {
      kept.push([span.answer, span.start, span.end]);
      tell(say("marked", { n: kept.length }));
    }
    state.danger = kept;
    paint(span.answer);
    changed(true);
  }

  function danger() {
    const span = selection() || selected;
    selected = null;
    if (span) {
      window.getSelection().removeAllRanges();
      return mark(span);
    }
    const sentence = sentences(0)[0];
    if (sentence) pick(0, sentence[0], sentence[1]);
  }

  function pick(answer, start, end) {
    const before = picker;
    picker = { answer, start, end };
    if (before && before.answer !== answer) paint(before.answer);
    paint(answer);
    const folded = one(".folded", one('article[data-i="' + answer + '"]'));
    if (folded) fold(folded.nextElementSibling);
    const shown = one(".picked");
    const low = one("#bar").getBoundingClientRect().top;
    if (shown && (shown.getBoundingClientRect().bottom > low || shown.getBoundingClientRect().top < 0)) {
      shown.scrollIntoView({ block: "center" });
    }
    tell(say("picking"));
  }

  function pickerKey(event, key) {
    const answer = picker.answer, found = sentences(answer);
    const first = found.findIndex((span) => span[0] === picker.start), last = found.findIndex((span) => span[1] === picker.end);
    if (key === "Escape") return leavePicker();
    if (key === "Enter" || key === "x") return mark(picker);
    if (/^[1-9]$/.test(key) && Number(key) <= k) {
      const sentence = sentences(Number(key) - 1)[0];
      return pick(Number(key) - 1, sentence[0], sentence[1]);
    }
    const step = key === "ArrowRight" || key === "ArrowDown" ? 1 : key === "ArrowLeft" || key === "ArrowUp" ? -1 : 0;
    const next = found[(step > 0 ? last : first) + step];
    if (step && next) pick(answer, event.shiftKey ? Math.min(picker.start, next[0]) : next[0], event.shiftKey ? Math.max(picker.end, next[1]) : next[1]);
  }

  function leavePicker() {
    const answer = picker.answer;
    picker = null;
    paint(answer);
    show();
  }

  function rewrite(answer) {
    const label = one('.rewrite[data-i="' + answer + '"]'), box = one("textarea", label);
    if (label.hidden && !box.value) box.value = plainText(answer);
    label.hidden = false;
    box.focus();
  }

  function comment() {
    one("#comment").hidden = false;
    one("#comment textarea").focus();
  }

  // --- drawing -------------------------------------------------------------------------------------------------------

  function changed(quiet) {
    save();
    if (!quiet) show();
  }

  function order(places) {
    const sorted = Array.from(new Set(places.filter((place) => place))).sort((a, b) => a - b);
    return sorted.map((place) => places.map((value, n) => (value === place ? n + 1 : 0)).filter((n) => n).join(" = ")).join(" > ");
  }

  function show() {
    const overall = state.ranks.overall || [], current = state.ranks[target] || [];
    const pressed = (button, on) => button.setAttribute("aria-pressed", on ? "true" : "false");
    all('[data-do="choose"]').forEach((button) => {
      const value = Number(button.dataset.v), on = { 0: "1,1", 1: "1,2", 2: "2,1" }[value] === current.join();
      pressed(button, on);
    });
    all('[data-do="place"]').forEach((button) => pressed(button, current[button.dataset.i] === Number(button.dataset.v)));
    all('[data-do="score"]').forEach((button) => pressed(button, (state.scores[button.dataset.a] || [])[button.dataset.i] === Number(button.dataset.v)));
    all('[data-do="target"]').forEach((button) => {
      pressed(button, button.dataset.v === target);
      const said = order(state.ranks[button.dataset.v] || []);
      one("i", button).textContent = said ? " " + said : "";
    });
    all("article[data-i]").forEach((article) => article.classList.toggle("best", overall[article.dataset.i] === 1));
    const cell = page.abilities[Math.floor(cursor / k)];
    all(".scores td").forEach((td) => td.classList.toggle("now", !!cell && td.dataset.a === cell.name && Number(td.dataset.i) === cursor % k));
    tell(line(current, cell));
  }

  function line(current, cell) {
    if (page.form === "scores" && !cell) return say("all_scored");
    if (page.form === "scores") return say("now_score", { dimension: cell.dimension, name: cell.label, ask: cell.ask, i: (cursor % k) + 1 });
    const said = order(current);
    if (!said) return say(page.form === "pair" ? "choose" : "press");
    return say("your_order", { order: said + (tie ? " =" : "") }) + (filled(target) ? "　" + say("all_placed") : "");
  }

  function tell(text) {
    one("#status").textContent = text;
  }

  function banner(text, action) {
    const box = one("#banner");
    box.textContent = text;
    box.hidden = !text;
    if (action) box.appendChild(action);
    if (text) box.scrollIntoView({ block: "nearest" });
  }

  function clock() {
    const seconds = Math.floor(activeTime() / 1000);
    one("#clock").textContent = Math.floor(seconds / 60) + ":" + ("0" + (seconds % 60)).slice(-2);
  }

  // --- time ----------------------------------------------------------------------------------------------------------

  // Moments of activity, one a second at most; the server cuts out what lies beyond 60 s without any.
  function active() {
    const now = Math.max(Date.now() - started, events.length ? events[events.length - 1] : 0);
    if (!events.length || now - events[events.length - 1] >= 1000) if (events.length < 19000) events.push(now);
  }

  function activeTime() {
    let sum = 0, before = 0;
    events.concat([Math.max(0, Date.now() - started)]).forEach((at) => {
      sum += Math.min(Math.max(at - before, 0), IDLE);
      before = Math.max(at, before);
    });
    return sum;
  }

  // --- keeping -------------------------------------------------------------------------------------------------------

  function keep(name, value) {
    try {
      if (value === null) localStorage.removeItem(name);
      else localStorage.setItem(name, JSON.stringify(value));
    } catch (error) { // switched off, or full: the page goes on and says so
      if (storage) tell(say("no_storage"));
      storage = false;
    }
  }

  function kept(name) {
    try {
      return JSON.parse(localStorage.getItem(name));
    } catch (error) { // switched off, or not ours
      return null;
    }
  }

  function names(start) {
    try {
      return Object.keys(localStorage).filter((name) => name.indexOf(start) === 0);
    } catch (error) { // switched off: nothing was kept
      return [];
    }
  }

  // A sentence for the next page of this tab: written with a text, read and forgotten without.
  function sessionNote(text) {
    try {
      const before = sessionStorage.getItem("xinglin.note");
      if (text) sessionStorage.setItem("xinglin.note", text);
      else sessionStorage.removeItem("xinglin.note");
      return before;
    } catch (error) { // switched off: the next page says nothing
      return null;
    }
  }

  function save() {
    if (left) return; // judged: nothing of it stays on this computer
    keep("xinglin.draft." + page.lease, { who: page.who, at: Date.now(), started, events, state });
  }

  function restore() {
    const draft = kept("xinglin.draft." + page.lease);
    names("xinglin.draft.").forEach((name) => {
      const old = kept(name);
      if (!old || Date.now() - old.at > 14 * DAY) keep(name, null);
    });
    if (!draft || draft.who !== page.who) return;
    state = Object.assign(empty(), draft.state);
    started = draft.started;
    events = draft.events;
    all(".answer").forEach((_, answer) => paint(answer));
    Object.keys(state.rewrites).forEach((answer) => {
      const label = one('.rewrite[data-i="' + answer + '"]');
      label.hidden = false;
      one("textarea", label).value = state.rewrites[answer];
    });
    if (state.comment) one("#comment").hidden = false;
    one("#comment textarea").value = state.comment;
    if (Object.keys(state.ranks).length || state.comment || state.danger.length) setTimeout(() => tell(say("restored")), 0);
  }

  function filled(name) {
    return (state.ranks[name] || []).filter((value) => !value).length <= (page.form === "rank" ? 1 : 0) && !!state.ranks[name];
  }

  // --- sending -------------------------------------------------------------------------------------------------------

  // The verdict as the server takes it, or what is missing as a sentence.
  function verdict() {
    const said = { danger: state.danger, rewrites: {}, comment: state.comment };
    Object.keys(state.rewrites).forEach((answer) => {
      if (state.rewrites[answer].trim() && state.rewrites[answer] !== plainText(answer)) said.rewrites[answer] = state.rewrites[answer];
    });
    if (page.form === "scores") {
      for (const ability of page.abilities) for (let i = 0; i < k; i++) if (!(state.scores[ability.name] || [])[i]) {
        cursor = page.abilities.indexOf(ability) * k + i;
        show();
        follow();
        return say("missing_score", { name: ability.label, i: i + 1 });
      }
      said.scores = state.scores;
    } else {
      if (!filled("overall")) return page.form === "pair" ? say("choose") : say("missing", { names: missing() });
      said.ranks = completed("overall");
      said.dimensions = {};
      for (const dimension of page.dimensions) {
        if (!(state.ranks[dimension.name] || []).some((value) => value)) continue;
        if (!filled(dimension.name)) return say("missing_part", { part: dimension.label });
        said.dimensions[dimension.name] = completed(dimension.name);
      }
    }
    return page.arbitration && !state.comment.trim() ? say("reason") : said;
  }

  function missing() {
    return ranks("overall").map((value, n) => (value ? 0 : n + 1)).filter((n) => n).join("、");
  }

  function completed(name) {
    const places = state.ranks[name], last = Math.max.apply(null, places);
    return places.map((value) => value || last + 1);
  }

  function clientId() {
    return Array.from(crypto.getRandomValues(new Uint8Array(16))).map((byte) => ("0" + byte.toString(16)).slice(-2)).join("");
  }

  function send() {
    if (sending) return;
    const said = verdict();
    if (typeof said === "string") {
      if (page.arbitration && said === say("reason")) comment();
      return tell(said);
    }
    active();
    post("/api/vote", { lease: page.lease, client_id: clientId(), verdict: said, events: events.concat([Math.max(0, Date.now() - started)]) });
  }

  function skipItem() {
    post("/api/skip", { lease: page.lease, client_id: clientId(), comment: state.comment });
  }

  function undoLast() {
    if (!sending) post("/api/undo", { project: page.project, client_id: clientId() });
  }

  // Keep it first, then send it: whatever happens now, it is sent again until the server has answered.
  function post(path, body) {
    if (sending) return;
    const job = { who: page.who, path, body };
    if (path !== "/api/undo") keep("xinglin.pending." + body.client_id, job);
    lock(true);
    tell(say("sending"));
    deliver(job);
  }

  function lock(on) {
    sending = on;
    all("#bar button, .places button, .scores button, textarea").forEach((element) => (element.disabled = on));
  }

  async function deliver(job) {
    clearTimeout(timer);
    let status = 0, answer = {};
    try {
      const stop = window.AbortController ? new AbortController() : null;
      const late = setTimeout(() => stop && stop.abort(), 20000);
      const response = await fetch(job.path, Object.assign(request(job.body), stop ? { signal: stop.signal } : {}));
      answer = await response.json();
      clearTimeout(late);
      status = response.status;
    } catch (error) { // no network, no server, or an answer cut short: the same as unsaved
      status = 0;
    }
    if (status === 403 && answer.error === "csrf" && (await freshToken())) return deliver(job);
    settle(job, status, answer);
  }

  function request(body) {
    const headers = { "content-type": "application/json", "x-csrf-token": page.csrf };
    return { method: "POST", credentials: "same-origin", headers, body: JSON.stringify(body) };
  }

  // The session may have been opened anew in another tab; never by somebody else.
  async function freshToken() {
    try {
      const response = await fetch("/api/token", { credentials: "same-origin" });
      const found = await response.json();
      if (!response.ok || found.who !== page.who || found.csrf === page.csrf) return false;
      page.csrf = found.csrf;
      return true;
    } catch (error) { // no network: the next attempt asks again
      return false;
    }
  }

  function settle(job, status, answer) {
    if (status === 200) return done(job, answer);
    if (status === 401 || (status === 403 && answer.error === "csrf")) return later(job, say("signed_out"), signInLink());
    if (status === 0 || status === 429 || status >= 500) return later(job, say(status === 503 ? "unavailable" : "unsaved"), retryButton(job));
    keep("xinglin.pending." + job.body.client_id, null);
    if (status === 409 && job.path !== "/api/undo" && answer.error !== "replayed") return leave(job, answer.message);
    lock(false);
    banner(job.body.lease === page.lease ? "" : answer.message || "");
    tell(answer.message || say("error_internal"));
  }

  function done(job, answer) {
    keep("xinglin.pending." + job.body.client_id, null);
    if (job.path === "/api/undo") {
      putBack(answer);
      sessionNote(say("undone"));
      return location.assign(answer.to);
    }
    leave(job, say(answer.note === "outdated" ? "outdated" : answer.duplicate ? "duplicate" : "saved"));
  }

  // Done with an item: its draft goes, the next one comes. A job of an earlier page leaves this page where it is.
  function leave(job, text) {
    keep("xinglin.draft." + job.body.lease, null);
    if (job.body.lease !== page.lease) {
      banner(say("resent"));
      lock(false);
      return flush();
    }
    left = true;
    sessionNote(text);
    location.assign(location.pathname);
  }

  // After an undo the doctor's own verdict is there again.
  function putBack(answer) {
    if (!answer.verdict) return;
    const said = answer.verdict, places = Object.assign({ overall: said.ranks }, said.dimensions);
    const before = { ranks: page.form === "scores" ? {} : places, scores: said.scores, danger: said.danger, rewrites: said.rewrites, comment: said.comment };
    keep("xinglin.draft." + answer.lease, { who: page.who, at: Date.now(), started: Date.now(), events: [], state: before });
  }

  function later(job, text, action) {
    banner(text, action);
    tell(text);
    wait = Math.min(wait * 1.6, 30000);
    timer = setTimeout(() => deliver(job), wait);
  }

  function retryButton(job) {
    const button = document.createElement("button");
    button.textContent = say("retry");
    button.addEventListener("click", () => deliver(job));
    return button;
  }

  function signInLink() {
    const link = document.createElement("a");
    link.textContent = say("sign_in");
    link.href = "/login?next=" + encodeURIComponent(location.pathname);
    return link;
  }

  // What an earlier page could not send, of this rater.
  function flush() {
    const job = names("xinglin.pending.").map(kept).filter((found) => found && found.who === page.who)[0];
    if (job && !sending) {
      lock(true);
      deliver(job);
    }
  }

  function keepLease() {
    if (sending || Date.now() - started - (events[events.length - 1] || 0) > 600000) return;
    fetch("/api/renew", request({ lease: page.lease })).catch(() => tell(say("unsaved")));
  }

  // --- keys and buttons ----------------------------------------------------------------------------------------------

  function listen() {
    ["keydown", "mousemove", "mousedown", "wheel", "touchstart", "scroll"].forEach((name) => document.addEventListener(name, active, { passive: true }));
    document.addEventListener("keydown", onKey);
    document.addEventListener("click", onClick);
    document.addEventListener("mousedown", (event) => {
      if (event.target.closest('[data-do="danger"]')) selected = selection(); // a click on a button ends the selection
    });
    document.addEventListener("touchstart", (event) => {
      if (event.target.closest('[data-do="danger"]')) selected = selection();
    }, { passive: true });
    document.addEventListener("input", onInput);
    window.addEventListener("pagehide", save);
    window.addEventListener("online", () => flush());
  }

  function onInput(event) {
    if (event.target.closest("#comment")) state.comment = event.target.value;
    else if (event.target.closest(".rewrite")) state.rewrites[event.target.dataset.i] = event.target.value;
    changed(true);
  }

  function onClick(event) {
    const button = event.target.closest("[data-do]");
    if (!button || button.disabled) return;
    const data = button.dataset, i = Number(data.i), v = Number(data.v);
    const actions = {
      choose: () => choose(v), place: () => place(i, v), score: () => score(data.a, i, v), equal, again,
      target: () => aim(data.v), send, danger, comment, rewrite: () => rewrite(i), skip: () => ask("skip"), undo: undoLast,
      help: () => toggle("#help"), guide: () => toggle("#guide"), close: closeAll,
    };
    if (actions[data.do]) actions[data.do]();
    if (data.do !== "comment" && data.do !== "rewrite") button.blur();
  }

  function equal() {
    if (page.form === "pair") return choose(0);
    state.ranks[target] = new Array(k).fill(1);
    changed();
  }

  function again() {
    delete state.ranks[target];
    trail[target] = [];
    tie = false;
    changed();
  }

  function aim(name) {
    target = name;
    tie = false;
    show();
  }

  function ask(what) {
    asking = what;
    tell(say(what === "skip" ? "skip_sure" : "which"));
  }

  function toggle(selector) {
    const box = one(selector), open = box.hidden;
    closeAll();
    box.hidden = !open;
    if (open) one(".close", box).focus();
  }

  function closeAll() {
    all(".over").forEach((box) => (box.hidden = true));
  }

  function keyOf(event) {
    if (event.key && event.key !== "Process" && event.key !== "Unidentified") return event.key.length === 1 ? event.key.toLowerCase() : event.key;
    return (event.code || "").replace(/^(Key|Digit|Numpad)/, "").toLowerCase(); // an input method has the key
  }

  function onKey(event) {
    if (event.isComposing || event.keyCode === 229 && event.target.matches("textarea")) return;
    const key = keyOf(event), typing = event.target.matches("textarea, input, select");
    if (typing) {
      if (key === "Escape") event.target.blur();
      if (key === "Enter" && event.ctrlKey) send();
      return;
    }
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (one(".over:not([hidden])")) {
      if (key === "Escape" || key === "g" || key === "?" || key === "？") closeAll();
      return;
    }
    if (event.target.matches("button, a") && (key === "Enter" || key === " ")) return;
    if (handle(event, key)) event.preventDefault();
  }

  // True where the key meant something.
  function handle(event, key) {
    if (sending) return false;
    if (asking) return answerTo(key);
    if (picker) {
      pickerKey(event, key);
      return true;
    }
    const digit = /^[0-9]$/.test(key) ? Number(key) : -1;
    if (digit >= 0) return digitKey(digit);
    const keys = {
      Enter: send, Backspace: back, x: danger, c: comment, n: () => ask("skip"), u: undoLast, g: () => toggle("#guide"),
      "?": () => toggle("#help"), "？": () => toggle("#help"), r: () => ask("which"),
      e: () => all(".unfold").forEach(fold), "=": () => { tie = page.form === "rank"; show(); },
      d: () => targets.length > 1 && page.form !== "scores" && aim(targets[(targets.indexOf(target) + 1) % targets.length]),
    };
    const arrows = { ArrowRight: () => move(1), ArrowLeft: () => move(-1), ArrowDown: () => move(k), ArrowUp: () => move(-k) };
    if (page.form === "scores") Object.assign(keys, arrows);
    if (!keys[key]) return false;
    keys[key]();
    return true;
  }

  function digitKey(digit) {
    if (page.form === "scores") {
      const cell = page.abilities[Math.floor(cursor / k)];
      if (cell && digit >= 1 && digit <= 5) score(cell.name, cursor % k, digit);
    } else if (page.form === "pair") {
      if (digit <= 2) choose(digit);
    } else if (digit === 0) equal();
    else if (digit <= k) press(digit - 1);
    return true;
  }

  function answerTo(key) {
    const what = asking;
    asking = null;
    if (what === "skip" && key === "Enter") skipItem();
    else if (what === "which" && /^[1-9]$/.test(key) && Number(key) <= k) rewrite(Number(key) - 1);
    else show();
    return true;
  }

  // --- the entrance --------------------------------------------------------------------------------------------------

  // The invitation stands behind the # of its link, which no browser sends and no server logs.
  function entrance() {
    all(".unfold").forEach((button) => (button.dataset.text = button.textContent));
    const field = one("#invitation"), link = one("#link");
    if (field && location.hash.length > 1) {
      field.value = decodeURIComponent(location.hash.slice(1));
      history.replaceState(null, "", location.pathname);
    }
    if (link) link.textContent = location.origin + "/invitation#" + link.dataset.token;
  }
})();
