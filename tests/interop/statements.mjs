// Signed statements with node:crypto and sealed payloads with age-encryption: the formats of vantage in another language.
import crypto from "node:crypto";
import * as age from "age-encryption";

export const kind = (name) => `application/vnd.vantage.${name}+json`;
const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

export class Refused extends Error {
  constructor(verdict, why) {
    super(`${verdict}: ${why}`);
    this.verdict = verdict;
  }
}

export function need(condition, verdict, why) {
  if (!condition) throw new Refused(verdict, why);
}

// ---- Signed statements ------------------------------------------------------------------------------------------

// The pre-authentication encoding of DSSE.
function encoding(type, payload) {
  const length = (bytes) => String(bytes.length);
  const name = Buffer.from(type);
  return Buffer.concat([Buffer.from(`DSSEv1 ${length(name)} `), name, Buffer.from(` ${length(payload)} `), payload]);
}

export const digestOf = (bytes) => `sha256:${crypto.createHash("sha256").update(bytes).digest("hex")}`;

// Who a certificate speaks for at a moment. Here authorities sign their holders directly.
export function certify(der, authorities, at) {
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

export function verify(text, type, authorities, at) {
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

export function decode(payload, name) {
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
  exceeds((order.max_runtime ?? Infinity) <= (above.max_runtime ?? Infinity), "time of a run");
  const given = order.delegation;
  if (given === undefined) return;
  exceeds(given.max_depth < granted.max_depth && given.max_tasks <= granted.max_tasks, "depth or number");
  for (const each of ["organizations", "functions", "datasets"]) exceeds(within(given[each], granted[each]), each);
}

export function verifyOrder({ parents, envelope }, authorities, at) {
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

export function verifyResult({ envelope, given }, authorities) {
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

export function verifyKeys({ envelope, given }, authorities, at) {
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

export function sign(type, payload, key, chain) {
  const spki = crypto.createPublicKey(key).export({ type: "spki", format: "der" });
  const signature = {
    keyid: crypto.createHash("sha256").update(spki).digest("hex"),
    sig: crypto.sign("sha256", encoding(type, payload), key).toString("base64"),
    x5c: chain.map((pem) => new crypto.X509Certificate(pem).raw.toString("base64")),
  };
  return JSON.stringify({ payloadType: type, payload: payload.toString("base64"), signatures: [signature] });
}

// ---- Sealed payloads --------------------------------------------------------------------------------------------

export async function open(sealed, identities) {
  const decrypter = new age.Decrypter();
  for (const each of identities) decrypter.addIdentity(each);
  try {
    return await decrypter.decrypt(sealed);
  } catch (problem) {
    throw new Refused("SEAL_INVALID", problem.message);
  }
}

const lineOf = (requester) => Buffer.from(`vantage-arguments/1 ${requester}\n`);

// What was opened, without the line that says for whose orders it was sealed.
export function argumentsOf(opened, requester) {
  const line = lineOf(requester);
  need(Buffer.from(opened.subarray(0, line.length)).equals(line), "SEAL_INVALID", `not sealed for ${requester}`);
  return opened.subarray(line.length);
}

export const sealArguments = (plaintext, recipients, requester) =>
  seal(Buffer.concat([lineOf(requester), plaintext]), recipients);

export async function seal(plaintext, recipients) {
  const encrypter = new age.Encrypter();
  for (const each of recipients) encrypter.addRecipient(each);
  return Buffer.from(await encrypter.encrypt(plaintext));
}
