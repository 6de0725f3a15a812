// Reads the description of the API and makes a form of each operation. What the service says is shown as text alone.
"use strict";

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function authorise(token) {
  document.getElementById("token").value = token;
  document.getElementById("signed").textContent = token ? "Authorised." : "Not authorised.";
}

function follow(schema, whole) {
  return schema.$ref ? schema.$ref.slice(2).split("/").reduce((place, name) => place[name], whole) : schema;
}

function fieldsOf(operation, whole) {
  const fields = (operation.parameters || []).map((parameter) => ({ ...parameter, schema: parameter.schema }));
  if (operation.requestBody) {
    const body = follow(operation.requestBody.content["application/json"].schema, whole);
    const required = body.required || [];
    // The required ones come in the order in which they are declared.
    for (const name of new Set([...required, ...Object.keys(body.properties)])) {
      fields.push({ name, in: "body", schema: body.properties[name], required: required.includes(name) });
    }
  }
  return fields;
}

async function send(method, path, fields, form, shown) {
  const query = new URLSearchParams();
  const body = {};
  for (const field of fields) {
    const value = form.elements[field.name].value;
    if (field.in === "path") path = path.replace(`{${field.name}}`, encodeURIComponent(value));
    else if (value === "") continue;
    else if (field.in === "query") query.set(field.name, value);
    else body[field.name] = value;
  }
  const headers = {};
  const token = document.getElementById("token").value.trim();
  if (token && path.includes("/movies/")) headers.Authorization = `Bearer ${token}`;
  const request = { method: method.toUpperCase(), headers };
  if (fields.some((field) => field.in === "body")) {
    headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  const address = query.size ? `${path}?${query}` : path;
  try {
    const answer = await fetch(address, request);
    const text = await answer.text();
    const told = text && JSON.parse(text);
    shown.className = answer.ok ? "" : "refused";
    shown.textContent = `${request.method} ${address}\n${answer.status}\n${text && JSON.stringify(told, null, 2)}`;
    if (answer.ok && told.access) {
      const use = make("button", { type: "button", className: "use", textContent: "Authorise with this token" });
      use.addEventListener("click", () => authorise(told.access));
      shown.append("\n", use);
    }
  } catch (error) {
    shown.className = "refused";
    shown.textContent = `No answer: ${error.message}`;
  }
  shown.hidden = false;
}

function show(path, method, operation, whole) {
  const fields = fieldsOf(operation, whole);
  const shown = make("pre", { hidden: true });
  const form = make("form", { noValidate: true });
  for (const field of fields) {
    const input = make("input", {
      name: field.name,
      type: field.schema.format === "password" ? "password" : "text",
      placeholder: field.schema.example ?? field.description ?? "",
      autocomplete: "off",
    });
    form.append(make("label", {}, field.name + (field.required ? " *" : ""), input));
  }
  form.append(make("button", { type: "submit", textContent: "Send" }), shown);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(method, path, fields, form, shown);
  });
  const statuses = Object.keys(operation.responses).join(", ");
  const summary = make("summary", {}, make("b", { textContent: method.toUpperCase() }), make("code", { textContent: path }), operation.summary);
  return make("details", { id: operation.operationId }, summary, make("p", { className: "refusals", textContent: `Answers: ${statuses}` }), form);
}

async function start() {
  const whole = await (await fetch("../schema/")).json();
  for (const [path, methods] of Object.entries(whole.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      document.getElementById("operations").append(show(path, method, operation, whole));
    }
  }
  document.getElementById("token").addEventListener("input", (event) => authorise(event.target.value));
}

start();
