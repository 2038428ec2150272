// What a program in another language thinks of the test vectors, and statements that it makes.
//
//   node formats.mjs judge VECTORS            what it thinks of every vector, as {name: verdict}
//   node formats.mjs make < {key, chain, order, recipients, plaintext}   a signed order and a sealed payload
//   node formats.mjs age-vectors              the published test vectors of age, one JSON object per line
import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import zlib from "node:zlib";
import * as published from "cctv-age";
import {
  argumentsOf, digestOf, kind, need, open, sealArguments, sign, verifyKeys, verifyOrder, verifyResult,
} from "./statements.mjs";

async function verifySealed(vector, keys) {
  const opened = await open(Buffer.from(vector.sealed, "base64"), [keys.identities[vector.opener].secret]);
  const content = vector.requester ? argumentsOf(opened, vector.requester) : opened;
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
  const sealed = await sealArguments(Buffer.from(plaintext), recipients, order.requester);
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
