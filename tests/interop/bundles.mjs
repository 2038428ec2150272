// Sigstore bundles with the libraries of sigstore's own JavaScript client, which know nothing of vantage.
//
//   node bundles.mjs verify < {bundle, key}            the verified statement; fails when it is not verified
//   node bundles.mjs make < {statement, key}           a bundle around a statement, signed with a key in PEM
import crypto from "node:crypto";
import fs from "node:fs";
import { bundleFromJSON, bundleToJSON } from "@sigstore/bundle";
import { DSSEBundleBuilder } from "@sigstore/sign";
import { toSignedEntity, Verifier } from "@sigstore/verify";

const PAYLOAD_TYPE = "application/vnd.in-toto+json";

const hintOf = (key) =>
  crypto.createHash("sha256").update(key.export({ type: "spki", format: "der" })).digest("base64");

function verify({ bundle, key }) {
  const trusted = crypto.createPublicKey(key);
  const finder = (hint) => {
    if (hint !== hintOf(trusted)) throw new Error(`the bundle asks for another key: ${hint}`);
    return { publicKey: trusted, validFor: () => true };
  };
  const verifier = new Verifier(
    { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [], publicKey: finder },
    { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 },
  );
  const parsed = bundleFromJSON(JSON.parse(bundle));
  verifier.verify(toSignedEntity(parsed));
  const { payload, payloadType } = parsed.content.dsseEnvelope;
  if (payloadType !== PAYLOAD_TYPE) throw new Error(`another type: ${payloadType}`);
  process.stdout.write(payload);
}

async function make({ statement, key }) {
  const own = crypto.createPrivateKey(key);
  const open = crypto.createPublicKey(own);
  const publicKey = open.export({ type: "spki", format: "pem" });
  const signer = {
    sign: async (data) => ({
      signature: crypto.sign("sha256", data, own),
      key: { $case: "publicKey", publicKey, hint: hintOf(open) },
    }),
  };
  const builder = new DSSEBundleBuilder({ signer, witnesses: [] });
  const bundle = await builder.create({ data: Buffer.from(statement), type: PAYLOAD_TYPE });
  process.stdout.write(JSON.stringify(bundleToJSON(bundle)));
}

const given = JSON.parse(fs.readFileSync(0, "utf8"));
switch (process.argv[2]) {
  case "verify":
    verify(given);
    break;
  case "make":
    await make(given);
    break;
  default:
    throw new Error(`cannot ${process.argv[2]}`);
}
