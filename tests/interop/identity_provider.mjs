// An OpenID Connect provider on loopback for tests: device flow, and code flow with PKCE. Prints its issuer.
import { createServer } from 'node:http';
import { generateKeyPairSync } from 'node:crypto';
import Provider from 'oidc-provider';

const server = createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;
const key = (kid, type, options) => ({ ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }), kid, use: 'sig' });
const provider = new Provider(issuer, {
  clients: [{
    client_id: 'vantage',
    application_type: 'native',
    token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code', 'urn:ietf:params:oauth:grant-type:device_code'],
    response_types: ['code'],
    redirect_uris: ['http://127.0.0.1/callback'],
    id_token_signed_response_alg: process.argv[2] ?? 'RS256',
  }],
  jwks: { keys: [key('one', 'rsa', { modulusLength: 2048 }), key('two', 'ec', { namedCurve: 'P-256' })] },
  cookies: { keys: ['test'] },
  features: { deviceFlow: { enabled: true } },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id, email: id, email_verified: true }) }),
});
// How often to ask is the provider's to say (RFC 8628, section 3.2); this library says nothing, which means five seconds.
provider.use(async (ctx, next) => {
  await next();
  if (ctx.path === '/device/auth' && ctx.status === 200) ctx.body = { ...ctx.body, interval: 1 };
});
server.on('request', provider.callback());
console.log(issuer);
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
