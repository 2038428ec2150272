// A researcher in another language: signs and seals a question, verifies the answers and opens them.
//
//   node sealed_client.mjs PROTOS COMMON_PROTOS ADDRESS CERTIFICATE < {"username", "password", "requester", "key", "chain",
//     "secret", "recipient", "authorities": [PEM, …], "collaboration", "image", "function", "organizations", "arguments"}
//
// Prints {organization: {verified, value}}, and what became of an answer that was changed on its way.
import crypto from "node:crypto";
import fs from "node:fs";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { digestOf, kind, need, open, sealArguments, sign, verifyKeys, verifyResult } from "./statements.mjs";

const [protos, common, address, certificate] = process.argv.slice(2);
const definition = loader.loadSync(
  ["auth_service", "key_service"].map((each) => `vantage/api/identity/v1/${each}.proto`)
    .concat("vantage/api/task/v1/task_service.proto"),
  { keepCase: true, longs: String, enums: String, oneofs: true, includeDirs: [protos, common] },
);
const api = grpc.loadPackageDefinition(definition).vantage.api;
const credentials = grpc.credentials.createSsl(fs.readFileSync(certificate));
const [auth, keys, tasks] = [api.identity.v1.AuthService, api.identity.v1.KeyService, api.task.v1.TaskService].map(
  (service) => new service(address, credentials),
);

const unary = (client, method, request, metadata = new grpc.Metadata()) =>
  new Promise((resolve, reject) => {
    client[method](request, metadata, (problem, answer) => (problem ? reject(problem) : resolve(answer)));
  });

const input = JSON.parse(fs.readFileSync(0, "utf8"));
const authorities = input.authorities.map((each) => new crypto.X509Certificate(each));
const session = await unary(auth, "Login", { username: input.username, password: input.password });
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${session.tokens.access_token}`);

// Whom to seal to: lists that nodes have signed, not what the server says.
const now = new Date();
const published = await unary(keys, "ListNodeKeys", { collaboration: input.collaboration }, metadata);
const targets = [];
const signed = [];
for (const organization of input.organizations) {
  const lists = published.keys.filter((each) => each.holder.startsWith(`${organization}/nodes/`));
  const recipients = lists.map(({ holder, envelope }) => {
    verifyKeys({ envelope, given: { holder, seen_version: 0 } }, authorities, now);
    return JSON.parse(Buffer.from(JSON.parse(envelope).payload, "base64")).recipients[0];
  });
  const sealed = await sealArguments(Buffer.from(JSON.stringify(input.arguments)), recipients, input.requester);
  const content = { digest: digestOf(sealed), size: sealed.length, media_type: "application/json" };
  targets.push({
    organization,
    arguments: { media_type: content.media_type, sealing: "SEALING_AGE_V1", inline: sealed, size_bytes: sealed.length,
      digest: content.digest },
    key_versions: lists.map(({ holder, version }) => ({ holder, version })),
  });
  signed.push({ organization, node: "", arguments: content, datasets: {} });
}

const id = crypto.randomUUID();
const order = {
  schema: "vantage.order/1", id, requester: input.requester, collaboration: input.collaboration, study: "",
  image: input.image, function: input.function, targets: signed, recipients: [input.recipient],
  created: now.toISOString(), expires: new Date(now.getTime() + 7_200_000).toISOString(),
};
const payload = Buffer.from(JSON.stringify(order));
const spec = {
  collaboration: input.collaboration, image: input.image, function: input.function, targets,
  order: Buffer.from(sign(kind("order"), payload, input.key, input.chain)),
};

const answers = {};
let tampered;
for await (const { event } of tasks.RunTask({ request_id: id, spec }, metadata)) {
  if (event.event !== "run_finished") continue;
  const run = event.run_finished.run;
  need(run.state === "RUN_STATE_SUCCEEDED", "RUN", JSON.stringify(run.failure));
  const content = run.result.inline;
  const given = { organization: run.organization, node: "", order: digestOf(payload), run: run.name };
  const envelope = run.statement.toString();
  verifyResult({ envelope, given: { ...given, digest: digestOf(content) } }, authorities);
  answers[run.organization] = JSON.parse(Buffer.from(await open(content, [input.secret])));
  try {
    verifyResult({ envelope, given: { ...given, digest: digestOf(Buffer.from("something else")) } }, authorities);
  } catch (problem) {
    tampered = problem.verdict;
  }
}
console.log(JSON.stringify({ answers, tampered }));
for (const each of [auth, keys, tasks]) each.close();
