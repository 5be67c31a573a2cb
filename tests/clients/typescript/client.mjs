// What an application does with the TypeScript SDK, each record compared with what was sent. All that it
// knows of the server is an endpoint, and by its certificate's authority the file in NODE_EXTRA_CA_CERTS.

import assert from "node:assert/strict";
import { randomBytes, webcrypto } from "node:crypto";
import { after, test } from "node:test";
import {
  AppendInput,
  AppendRecord,
  BatchTransform,
  FencingTokenMismatchError,
  Producer,
  RangeNotSatisfiableError,
  S2,
  S2Error,
  SeqNumMismatchError,
} from "@s2-dev/streamstore";

// Node 18 has it, but not as a global.
globalThis.crypto ??= webcrypto;

const { CLIENT_ENDPOINT, CLIENT_BASIN, CLIENT_KEY, CLIENT_MARKER } = process.env;
const cipher = process.env.CLIENT_CIPHER || null;
const endpoints = { account: CLIENT_ENDPOINT, basin: CLIENT_ENDPOINT };
const s2 = new S2({ accessToken: "token", endpoints });
const basin = s2.basin(CLIENT_BASIN);

const opened = [];
const open = (name, options) => {
  const stream = basin.stream(name, options);
  opened.push(stream);
  return stream;
};
const stream = (name, options = {}) =>
  open(name, cipher ? { encryptionKey: CLIENT_KEY, ...options } : options);

// Their connections would keep the process alive.
after(() => Promise.all(opened.map((stream) => stream.close())));

// The test looks for the marker in all that the upstream gets.
const text = (number) => `${CLIENT_MARKER} ${number}`;
const noise = (number, length) => {
  const start = Buffer.from(text(number));
  return Buffer.concat([start, randomBytes(length - start.length)]);
};

// A batch of 1 MiB, which does not fit any more once it is encrypted.
const full = () =>
  Array.from({ length: 512 }, (_, at) => AppendRecord.bytes({ body: noise(at, 2040) }));

const same = (record, seqNum, body) => {
  assert.equal(record.seqNum, seqNum);
  // No assert.equal: two bodies help nobody.
  assert.ok(Buffer.compare(Buffer.from(record.body), Buffer.from(body)) === 0, `record ${seqNum}`);
};

// Reads a stream from its start to its tail, and compares.
async function readAll(stream, bodies) {
  const stop = { limits: { count: bodies.length } };
  const session = await stream.readSession(
    { start: { from: { seqNum: 0 } }, stop },
    { as: "bytes" },
  );
  let next = 0;
  for await (const record of session) {
    same(record, next, bodies[next]);
    next += 1;
  }
  assert.equal(next, bodies.length);
}

const code = (expected, status) => (error) => {
  assert.ok(error instanceof S2Error, error);
  assert.deepEqual([error.code, error.status], [expected, status], error.message);
  return true;
};

test("a basin gives its cipher to its streams", async () => {
  const config = { createStreamOnAppend: true, streamCipher: cipher };
  await s2.basins.create({ basin: CLIENT_BASIN, config });
  const read = await s2.basins.getConfig({ basin: CLIENT_BASIN });
  assert.equal(read.streamCipher ?? null, cipher);
  const made = await basin.streams.create({ stream: "unary" });
  assert.equal(made.cipher ?? null, cipher);
  const ensured = await basin.streams.ensure({ stream: "unary" });
  assert.equal(ensured.result, "noop");
  assert.equal(ensured.stream.cipher ?? null, cipher);
});

test("unary appends and reads, as text and as bytes", async () => {
  const unary = stream("unary");
  const timestamp = new Date(1_700_000_000_000);
  const ack = await unary.append(
    AppendInput.create([
      AppendRecord.string({ body: text("söm€ 😀"), headers: [["kind", "text"]], timestamp }),
      AppendRecord.bytes({
        body: noise(1, 200),
        headers: [[new Uint8Array([255, 0]), new Uint8Array([254])], ["a", ""]],
        timestamp: timestamp.getTime() + 1,
      }),
      AppendRecord.string({ body: text(2) }),
    ]),
  );
  assert.deepEqual([ack.start.seqNum, ack.end.seqNum, ack.tail.seqNum], [0, 3, 3]);
  const { tail } = await unary.checkTail();
  assert.equal(tail.seqNum, 3);

  const strings = await unary.read({ start: { from: { seqNum: 0 } } });
  assert.equal(strings.records.length, 3);
  assert.equal(strings.records[0].body, text("söm€ 😀"));
  assert.deepEqual(strings.records[0].headers, [["kind", "text"]]);
  assert.deepEqual(strings.records[0].timestamp, timestamp);
  assert.deepEqual(ack.start.timestamp, timestamp);

  const one = await unary.read(
    { start: { from: { timestamp: timestamp.getTime() + 1 } }, stop: { limits: { count: 1 } } },
    { as: "bytes" },
  );
  const [record, ...more] = one.records;
  assert.equal(more.length, 0);
  assert.equal(record.seqNum, 1);
  assert.equal(record.body.length, 200);
  const headers = record.headers.map(([name, value]) => [[...name], [...value]]);
  assert.deepEqual(headers, [[[255, 0], [254]], [[97], []]]);
  const last = await unary.read({ start: { from: { tailOffset: 1 } } });
  same(last.records[0], 2, text(2));
  await assert.rejects(
    unary.read({ start: { from: { seqNum: 4 } } }),
    (error) => error instanceof RangeNotSatisfiableError && error.tail.seqNum === 3,
  );
});

test("a stream may have any name", async () => {
  const odd = stream("odd/na me?#%2f€");
  await odd.append(AppendInput.create([AppendRecord.string({ body: text(0) })]));
  await readAll(odd, [text(0)]);
});

for (const forceTransport of ["s2s", "fetch"]) {
  test(`a session over ${forceTransport} acks and delivers every batch`, async () => {
    const many = stream(`session-${forceTransport}`, { forceTransport });
    const session = await many.appendSession();
    const sent = [];
    const tickets = [];
    for (let number = 0; number < 100; number += 1) {
      const batch = Array.from({ length: 1 + (number % 9) }, (_, at) =>
        at % 2
          ? AppendRecord.bytes({ body: noise(number, 300 + at) })
          : AppendRecord.string({ body: text(number), headers: [["at", `${at}`]] }),
      );
      if (number === 20) batch.splice(0, batch.length, ...full());
      tickets.push([sent.length, batch.length, session.submit(AppendInput.create(batch))]);
      sent.push(...batch.map((record) => record.body));
    }
    for (const [start, count, ticket] of tickets) {
      const ack = await (await ticket).ack();
      assert.deepEqual([ack.start.seqNum, ack.end.seqNum], [start, start + count]);
    }
    await session.close();
    await readAll(many, sent);
  });

  test(`a producer over ${forceTransport} lands every record once and in order`, async () => {
    const many = stream(`producer-${forceTransport}`, { forceTransport });
    const producer = new Producer(new BatchTransform(), await many.appendSession());
    const sent = [];
    const tickets = [];
    for (let number = 0; number < 2000; number += 1) {
      const body = noise(number, number % 3 ? 2048 : 64);
      sent.push(body);
      tickets.push(producer.submit(AppendRecord.bytes({ body })));
    }
    await producer.flush();
    for (const [seqNum, ticket] of tickets.entries()) {
      const ack = await (await ticket).ack();
      assert.equal(ack.seqNum(), seqNum);
    }
    await producer.close();
    assert.equal((await many.checkTail()).tail.seqNum, sent.length);
    await readAll(many, sent);
  });

  test(`a read session over ${forceTransport} follows the tail`, async () => {
    const followed = stream(`followed-${forceTransport}`, { forceTransport });
    const append = (number) =>
      followed.append(AppendInput.create([AppendRecord.string({ body: text(number) })]));
    await append(0);
    const session = await followed.readSession({ start: { from: { seqNum: 0 } } });
    let next = 0;
    for await (const record of session) {
      same(record, next, text(next));
      next += 1;
      if (next === 20) break;
      // The session stands at the tail when this arrives.
      await append(next);
    }
    assert.equal(next, 20);
  });
}

test("conditions fail as the SDK's own errors", async () => {
  const guarded = stream("guarded");
  const record = (number) => AppendRecord.string({ body: text(number) });
  await guarded.append(AppendInput.create([record(0)], { matchSeqNum: 0 }));
  await assert.rejects(
    guarded.append(AppendInput.create([record(1)], { matchSeqNum: 7 })),
    (error) => error instanceof SeqNumMismatchError && error.expectedSeqNum === 1,
  );
  await guarded.append(AppendInput.create([AppendRecord.fence("mine")]));
  await assert.rejects(
    guarded.append(AppendInput.create([record(2)], { fencingToken: "yours" })),
    (error) => error instanceof FencingTokenMismatchError && error.expectedFencingToken === "mine",
  );
  const options = { fencingToken: "mine", matchSeqNum: 2 };
  await guarded.append(AppendInput.create([record(2), AppendRecord.trim(2)], options));
  const session = await guarded.appendSession();
  const failed = await session.submit(AppendInput.create([record(3)], { matchSeqNum: 1 }));
  await assert.rejects(failed.ack(), SeqNumMismatchError);
  await assert.rejects(session.close(), SeqNumMismatchError);

  // The store trims in its own time.
  let first;
  do {
    const read = await guarded.read({
      start: { from: { seqNum: 0 } },
      ignoreCommandRecords: true,
    });
    [first] = read.records;
  } while (first.seqNum < 2);
  same(first, 2, text(2));
});

test("another key, and none, are refused where there is a cipher, and any where there is none", async () => {
  const start = { start: { from: { seqNum: 0 } } };
  const input = AppendInput.create([AppendRecord.string({ body: text("not appended") })]);
  const wrong = open("unary", { encryptionKey: cipher ? randomBytes(32) : CLIENT_KEY });
  const before = await wrong.checkTail();
  if (!cipher) {
    await assert.rejects(wrong.read(start), code("invalid", 422));
    await assert.rejects(wrong.append(input), code("invalid", 422));
    assert.deepEqual(await open("unary").checkTail(), before);
    return;
  }
  await assert.rejects(wrong.read(start), code("decryption_failed", 400));
  await assert.rejects(wrong.append(input), code("decryption_failed", 400));
  const none = open("unary");
  await assert.rejects(none.read(start), code("invalid", 422));
  await assert.rejects(none.append(input), code("invalid", 422));
  for (const forceTransport of ["s2s", "fetch"]) {
    const encryptionKey = randomBytes(32);
    const wrong = open("unary", { encryptionKey, forceTransport });
    const reading = async () => {
      for await (const record of await wrong.readSession(start)) assert.fail(record);
    };
    await assert.rejects(reading, code("decryption_failed", 400));
    const session = await wrong.appendSession();
    const ticket = await session.submit(input);
    await assert.rejects(ticket.ack(), code("decryption_failed", 400));
    await assert.rejects(session.close(), code("decryption_failed", 400));
  }
  assert.deepEqual(await wrong.checkTail(), before);
});

test("streams are listed with their cipher, and deleted", async () => {
  const listed = [];
  for await (const info of basin.streams.listAll({ limit: 3 })) {
    assert.equal(info.cipher ?? null, cipher, info.name);
    listed.push(info.name);
  }
  assert.equal(listed.length, 9, listed);
  await basin.streams.create({ stream: "gone" });
  await basin.streams.delete({ stream: "gone" });
  for await (const info of basin.streams.listAll({ prefix: "go" })) assert.fail(info.name);
});
