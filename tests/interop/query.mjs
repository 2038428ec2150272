// A program that knows PostgreSQL and nothing of vantage: the driver finds where and as whom in its environment.
import pg from "pg";

const client = new pg.Client();
await client.connect();
const { rows } = await client.query("SELECT session_user AS who, count(*)::int AS number, sum(age)::int AS ages FROM cases WHERE age >= $1", [
  Number(process.argv[2]),
]);
await client.end();
const secrets = Object.values(process.env).filter((value) => value.includes("battery"));
console.log(JSON.stringify({ ...rows[0], secrets: secrets.length }));
