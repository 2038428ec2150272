// A client in another language: everything that it knows of vantage it reads from the protos when it starts.
//
//   node client.js PROTOS COMMON_PROTOS ADDRESS CERTIFICATE < {"username": …, "password": …, "questions": [spec, …]}
//
// Logs in, asks the first question with RunTask, follows the same task again with WatchTask, asks all of them over one
// stream with RunTasks, and shows what an error looks like. Prints one JSON object.
"use strict";

const crypto = require("node:crypto");
const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [protos, common, address, certificate] = process.argv.slice(2);
const options = { keepCase: true, longs: String, enums: String, bytes: String, oneofs: true, includeDirs: [protos, common] };
const definition = loader.loadSync(
  ["vantage/api/identity/v1/auth_service.proto", "vantage/api/task/v1/task_service.proto", "google/rpc/status.proto",
    "google/rpc/error_details.proto"],
  options,
);
const api = grpc.loadPackageDefinition(definition).vantage.api;
const credentials = grpc.credentials.createSsl(fs.readFileSync(certificate));

const auth = new api.identity.v1.AuthService(address, credentials);
const tasks = new api.task.v1.TaskService(address, credentials);

function unary(client, method, request, metadata = new grpc.Metadata()) {
  return new Promise((resolve, reject) => {
    client[method](request, metadata, (problem, answer) => (problem ? reject(problem) : resolve(answer)));
  });
}

async function all(stream) {
  const messages = [];
  for await (const message of stream) messages.push(message);
  return messages;
}

// google.rpc.ErrorInfo of an error, from google.rpc.Status in its trailing metadata.
function errorInfoOf(problem) {
  const [bytes] = problem.metadata.get("grpc-status-details-bin");
  const status = definition["google.rpc.Status"].deserialize(bytes);
  const detail = status.details.find((each) => each.type_url === "type.googleapis.com/google.rpc.ErrorInfo");
  return definition["google.rpc.ErrorInfo"].deserialize(Buffer.from(detail.value, "base64"));
}

async function main() {
  const input = JSON.parse(fs.readFileSync(0, "utf8"));
  const { username, password, questions } = input;

  const session = await unary(auth, "Login", { username, password });
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${session.tokens.access_token}`);
  const principal = await unary(auth, "GetPrincipal", {}, metadata);

  const asked = await all(tasks.RunTask({ request_id: crypto.randomUUID(), spec: questions[0] }, metadata));
  const name = asked[0].event.snapshot.task.name;
  const watched = await all(tasks.WatchTask({ name, after_sequence: asked[0].event.sequence }, metadata));

  const stream = tasks.RunTasks(metadata);
  for (const spec of questions) stream.write({ request_id: crypto.randomUUID(), spec });
  stream.end();
  const many = await all(stream);

  const refused = await unary(auth, "Login", { username, password: "wrong" }).catch((problem) => problem);
  console.log(JSON.stringify({
    user: session.user,
    principal: principal.name,
    asked: asked.map((each) => each.event),
    watched: watched.map((each) => each.event),
    many,
    refused: { code: grpc.status[refused.code], info: errorInfoOf(refused) },
  }));
  auth.close();
  tasks.close();
}

main().catch((problem) => {
  console.error(problem);
  process.exitCode = 1;
});
