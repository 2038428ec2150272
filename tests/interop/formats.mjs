// The formats of vantage in another language: signed statements with node:crypto, sealed payloads with age-encryption.
//
//   node formats.mjs judge VECTORS            what it thinks of every vector, as {name: verdict}
//   node formats.mjs make < {key, chain, order, recipients, plaintext}   a signed order and a sealed payload
//   node formats.mjs age-vectors              the published test vectors of age, one JSON object per line
import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import zlib from "node:zlib";
import * as age from "age-encryption";
import * as published from "cctv-age";

const kind = (name) => `application/vnd.vantage.${name}+json`;
const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

class Refused extends Error {
  constructor(verdict, why) {
    super(`${verdict}: ${why}`);
    this.verdict = verdict;
  }
}

function need(condition, verdict, why) {
  if (!condition) throw new Refused(verdict, why);
}

// ---- Signed statements ------------------------------------------------------------------------------------------

// The pre-authentication encoding of DSSE.
function encoding(type, payload) {
  const length = (bytes) => String(bytes.length);
  const name = Buffer.from(type);
  return Buffer.concat([Buffer.from(`DSSEv1 ${length(name)} `), name, Buffer.from(` ${length(payload)} `), payload]);
}

const digestOf = (bytes) => `sha256:${crypto.createHash("sha256").update(bytes).digest("hex")}`;

// Who a certificate speaks for at a moment. Here authorities sign their holders directly.
function certify(der, authorities, at) {
  const leaf = new crypto.X509Certificate(der);
  const root = authorities.find((each) => leaf.checkIssued(each) && leaf.verify(each.publicKey));
  need(root !== undefined, "CERTIFICATE_UNTRUSTED", "no authority that is trusted signed it");
  for (const each of [leaf, root]) {
    need(new Date(each.validFrom) <= at && at <= new Date(each.validTo), "CERTIFICATE_UNTRUSTED", "not valid then");
  }
  const [name, organization] = [nameIn(leaf), nameIn(root)];
  need(name.startsWith(`${organization}/`), "CERTIFICATE_UNTRUSTED", `${organization} cannot certify ${name}`);
  return { name, organization, key: leaf.publicKey };
}

// The one URI "vantage:NAME" among the alternative names.
function nameIn(certificate) {
  const names = (certificate.subjectAltName ?? "").split(", ").filter((each) => each.startsWith("URI:vantage:"));
  need(names.length === 1, "CERTIFICATE_UNTRUSTED", "it must name one resource");
  return names[0].slice("URI:vantage:".length);
}

function verify(text, type, authorities, at) {
  const envelope = JSON.parse(text);
  need(envelope.payloadType === type, "ORDER_INVALID", "another type");
  need(envelope.signatures.length === 1, "ORDER_INVALID", "one signature is wanted");
  const [{ sig, x5c, keyid }] = envelope.signatures;
  need(x5c.length === 1, "ORDER_INVALID", "one certificate is wanted");
  const signer = certify(Buffer.from(x5c[0], "base64"), authorities, at);
  const spki = signer.key.export({ type: "spki", format: "der" });
  need(crypto.createHash("sha256").update(spki).digest("hex") === keyid || keyid === undefined, "ORDER_INVALID", "keyid");
  const payload = Buffer.from(envelope.payload, "base64");
  const right = crypto.verify("sha256", encoding(type, payload), signer.key, Buffer.from(sig, "base64"));
  need(right, "ORDER_INVALID", "not signed with the key of its certificate");
  return { payload, digest: digestOf(payload), signer };
}

// Schema -> fields that must be there, fields that may.
const FIELDS = {
  order: [
    ["id", "requester", "collaboration", "study", "image", "function", "targets", "recipients", "created", "expires"],
    ["max_runtime", "delegation", "parent"],
  ],
  result: [["order", "run", "node", "outcome", "finished"], ["result", "failure"]],
  keys: [["holder", "version", "recipients", "created", "expires"], []],
};

function decode(payload, name) {
  const found = JSON.parse(payload);
  need(found.schema === `vantage.${name}/1`, "ORDER_INVALID", "an unknown version");
  const [must, may] = FIELDS[name];
  for (const each of must) need(each in found, "ORDER_INVALID", `${each} is missing`);
  for (const each of Object.keys(found)) {
    need(["schema", ...must, ...may].includes(each), "ORDER_INVALID", `${each} is not known`);
  }
  return found;
}

function checkTimes(order, at) {
  const [created, expires] = [new Date(order.created), new Date(order.expires)];
  need(expires > created && expires - created <= 31 * DAY, "ORDER_INVALID", "it must be valid for at most 31 days");
  need(created - at <= 2 * MINUTE, "ORDER_EXPIRED", "signed in the future");
  need(expires > at, "ORDER_EXPIRED", "its time is over");
}

const within = (mine, theirs) => !theirs || (mine && mine.every((each) => theirs.includes(each)));

function checkNarrower(order, above, signer) {
  const exceeds = (condition, why) => need(condition, "ORDER_EXCEEDS_PARENT", why);
  exceeds(/^organizations\/[^/]+\/nodes\/[^/]+$/.test(order.requester), "not signed by a node");
  const asked = (each) => each.organization === signer.organization && ["", order.requester].includes(each.node);
  exceeds(above.targets.some(asked), "not asked by the order above");
  const granted = above.delegation;
  exceeds(granted !== undefined, "no subtasks");
  for (const each of ["collaboration", "study", "image"]) exceeds(order[each] === above[each], each);
  exceeds(within([order.function], granted.functions), "function");
  for (const target of order.targets) {
    exceeds(granted.organizations.includes(target.organization), "organization");
    exceeds(within(Object.values(target.datasets), granted.datasets), "dataset");
  }
  exceeds(new Date(order.expires) <= new Date(above.expires), "expiry");
  const given = order.delegation;
  if (given === undefined) return;
  exceeds(given.max_depth < granted.max_depth && given.max_tasks <= granted.max_tasks, "depth or number");
  for (const each of ["organizations", "functions", "datasets"]) exceeds(within(given[each], granted[each]), each);
}

function verifyOrder({ parents, envelope }, authorities, at) {
  let above;
  for (const each of [...parents, envelope]) {
    const { payload, digest, signer } = verify(each, kind("order"), authorities, at);
    const order = decode(payload, "order");
    need(order.requester === signer.name, "ORDER_INVALID", "it speaks for another");
    checkTimes(order, at);
    if (above === undefined) {
      const user = /^organizations\/[^/]+\/users\/[^/]+$/.test(order.requester);
      need(user && order.parent === undefined, "ORDER_INVALID", "at the top stands an order of a user");
    } else {
      need(order.parent?.order === above.digest, "ORDER_INVALID", "it names another order");
      checkNarrower(order, above.order, signer);
    }
    above = { order, digest };
  }
}

function verifyResult({ envelope, given }, authorities) {
  const unverified = (condition, why) => need(condition, "RESULT_UNVERIFIED", why);
  let found;
  let signed;
  try {
    const claimed = JSON.parse(Buffer.from(JSON.parse(envelope).payload, "base64"));
    signed = verify(envelope, kind("result"), authorities, new Date(claimed.finished));
    found = decode(signed.payload, "result");
  } catch (problem) {
    throw new Refused("RESULT_UNVERIFIED", problem.message);
  }
  unverified(found.node === signed.signer.name, "another signer");
  unverified(signed.signer.organization === given.organization, "another organization");
  unverified(["", found.node].includes(given.node), "another node");
  unverified(found.order === given.order, "another order");
  unverified(found.run === given.run, "another run");
  const succeeded = found.outcome === "succeeded";
  unverified(("result" in found) === succeeded && ("failure" in found) !== succeeded, "it contradicts itself");
  unverified((found.result?.digest ?? null) === given.digest, "other bytes");
}

function verifyKeys({ envelope, given }, authorities, at) {
  const { payload, signer } = verify(envelope, kind("keys"), authorities, at);
  const found = decode(payload, "keys");
  need(found.holder === signer.name && found.holder === given.holder, "KEYS_INVALID", "of another holder");
  const [created, expires] = [new Date(found.created), new Date(found.expires)];
  need(created - at <= 2 * MINUTE && expires - created <= 400 * DAY, "KEYS_INVALID", "its times");
  need(expires > at, "KEYS_STALE", "its time is over");
  need(found.version >= given.seen_version, "KEYS_STALE", "an older version");
  for (const each of found.recipients) {
    try {
      new age.Encrypter().addRecipient(each);
    } catch (problem) {
      throw new Refused("KEYS_INVALID", problem.message);
    }
  }
}

function sign(type, payload, key, chain) {
  const spki = crypto.createPublicKey(key).export({ type: "spki", format: "der" });
  const signature = {
    keyid: crypto.createHash("sha256").update(spki).digest("hex"),
    sig: crypto.sign("sha256", encoding(type, payload), key).toString("base64"),
    x5c: chain.map((pem) => new crypto.X509Certificate(pem).raw.toString("base64")),
  };
  return JSON.stringify({ payloadType: type, payload: payload.toString("base64"), signatures: [signature] });
}

// ---- Sealed payloads --------------------------------------------------------------------------------------------

async function open(sealed, identities) {
  const decrypter = new age.Decrypter();
  for (const each of identities) decrypter.addIdentity(each);
  try {
    return await decrypter.decrypt(sealed);
  } catch (problem) {
    throw new Refused("SEAL_INVALID", problem.message);
  }
}

async function verifySealed(vector, keys) {
  const content = await open(Buffer.from(vector.sealed, "base64"), [keys.identities[vector.opener].secret]);
  need(content.length === vector.size && digestOf(content) === vector.digest, "SEAL_INVALID", "something else in it");
}

// ---- What can be asked ------------------------------------------------------------------------------------------

async function judge(directory) {
  const read = (name) => JSON.parse(fs.readFileSync(path.join(directory, name), "utf8"));
  const keys = read("keys.json");
  const authorities = keys.trusted.map((each) => new crypto.X509Certificate(keys.authorities[each]));
  const judges = { order: verifyOrder, result: verifyResult, keys: verifyKeys };
  const verdicts = {};
  for (const file of fs.readdirSync(directory).filter((each) => each.endsWith("-vectors.json"))) {
    for (const vector of read(file)) {
      try {
        if (file === "sealed-vectors.json") {
          await verifySealed(vector, keys);
        } else {
          judges[vector.name.split("/")[0]](vector, authorities, new Date(vector.at));
          need(digestOf(Buffer.from(vector.payload)) === vector.digest, "DIGEST", "the digest in the vector");
        }
        verdicts[vector.name] = "valid";
      } catch (problem) {
        verdicts[vector.name] = problem.verdict ?? String(problem.stack);
      }
    }
  }
  console.log(JSON.stringify(verdicts));
}

async function make({ key, chain, order, recipients, plaintext }) {
  const encrypter = new age.Encrypter();
  for (const each of recipients) encrypter.addRecipient(each);
  const sealed = Buffer.from(await encrypter.encrypt(Buffer.from(plaintext)));
  for (const target of order.targets) {
    target.arguments = { digest: digestOf(sealed), size: sealed.length, media_type: "application/json" };
  }
  const envelope = sign(kind("order"), Buffer.from(JSON.stringify(order)), key, chain);
  console.log(JSON.stringify({ envelope, sealed: sealed.toString("base64") }));
}

function ageVectors() {
  for (const [name, file] of Object.entries(published)) {
    if (name === "default") continue;
    const bytes = Buffer.from(file);
    const border = bytes.indexOf("\n\n");
    const fields = { identity: [] };
    for (const line of bytes.subarray(0, border).toString().split("\n")) {
      const [field, value] = [line.slice(0, line.indexOf(": ")), line.slice(line.indexOf(": ") + 2)];
      if (field === "identity") fields.identity.push(value);
      else fields[field] = value;
    }
    const body = bytes.subarray(border + 2);
    const content = fields.compressed === "zlib" ? zlib.inflateSync(body) : body;
    console.log(JSON.stringify({ name, ...fields, content: content.toString("base64") }));
  }
}

switch (process.argv[2]) {
  case "judge":
    await judge(process.argv[3]);
    break;
  case "make":
    await make(JSON.parse(fs.readFileSync(0, "utf8")));
    break;
  case "age-vectors":
    ageVectors();
    break;
  default:
    throw new Error(`cannot ${process.argv[2]}`);
}
