// SPDX-License-Identifier: Apache-2.0

// What programs of Node do with a kernel: compiled code, worker threads, collected
// memory, files, sockets, children, WebAssembly with its faults. Each part prints
// what it came to, which depends on nothing but the program.
'use strict';
const assert = require('assert');
const child = require('child_process');
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
const net = require('net');
const os = require('os');
const path = require('path');
const zlib = require('zlib');
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');

function mix(h, v) {
  h = Math.imul(h ^ v, 0x9E3779B1);
  return h ^ (h >>> 15);
}

function work(seed, n) {
  let h = seed;
  for (let i = 0; i < n; i++) h = mix(h, i);
  return h >>> 0;
}

function bytes(size) {
  const b = Buffer.alloc(size);
  let h = 3;
  for (let i = 0; i < size; i++) { h = mix(h, i); b[i] = h; }
  return b;
}

const sum = (b) => crypto.createHash('sha256').update(b).digest('hex').slice(0, 16);

if (!isMainThread) {
  const shared = new Int32Array(workerData.shared);
  for (let i = 0; i < 2000; i++) Atomics.add(shared, 0, 1);
  Atomics.add(shared, 1, 1);
  Atomics.notify(shared, 1);
  parentPort.postMessage(work(workerData.seed, 100000));
} else {
  main();
}

const dir = isMainThread ? fs.mkdtempSync(path.join(os.tmpdir(), 'work')) : '';

const parts = {
  'compiled code': async () => {
    let h = 0, d = 0;
    for (let round = 0; round < 100; round++) {
      h = mix(h, work(round, 20000));
      d += Math.sqrt(round) * (h & 1 ? 1 : -1);
    }
    return `${h >>> 0} ${d.toFixed(9)}`;
  },
  'code of many shapes': async () => {
    // Each function is compiled, and given up again when the types change.
    let h = 1;
    for (let n = 0; n < 30; n++) {
      const f = new Function('a', 'b', `let s = ${n}; for (let i = 0; i < 3000; i++) s = s * 31 % 65537 + (a + b).length % 7; return s;`);
      h = mix(h, f('a', n));
      h = mix(h, f([1], [2, 3]) | 0);
    }
    return `${h >>> 0}`;
  },
  'workers': async () => {
    const shared = new SharedArrayBuffer(8);
    const results = await Promise.all([1, 2, 3, 4].map((seed) => new Promise((resolve, reject) => {
      const w = new Worker(__filename, { workerData: { seed, shared } });
      w.on('message', resolve);
      w.on('error', reject);
    })));
    const n = new Int32Array(shared);
    return `${results.join(' ')} ${n[0]} ${n[1]}`;
  },
  'collected memory': async () => {
    const live = new Map();
    for (let i = 0; i < 100000; i++) live.set(i % 1000, { i, b: Buffer.alloc(i % 700), s: 'x' + i });
    if (global.gc) global.gc();
    let h = 5;
    for (const [k, v] of [...live].sort((a, b) => a[0] - b[0])) h = mix(h, k + v.i + v.b.length + v.s.length);
    return `${live.size} ${h >>> 0}`;
  },
  'hot reads': async () => {
    const zero = fs.openSync('/dev/zero', 'r'), none = fs.openSync('/dev/null', 'w');
    const b = Buffer.alloc(1);
    let n = 0;
    for (let i = 0; i < 30000; i++) {
      n += fs.readSync(zero, b, 0, 1);
      n += fs.writeSync(none, b, 0, 1);
    }
    fs.closeSync(zero);
    fs.closeSync(none);
    return `${n}`;
  },
  'files': async () => {
    await Promise.all([...Array(50).keys()].map((i) => fs.promises.writeFile(path.join(dir, `f${i}`), bytes(i * 331))));
    fs.renameSync(path.join(dir, 'f7'), path.join(dir, 'moved'));
    fs.unlinkSync(path.join(dir, 'f8'));
    const names = fs.readdirSync(dir).sort();
    const all = await Promise.all(names.map((n) => fs.promises.readFile(path.join(dir, n))));
    return `${names.length} ${sum(Buffer.concat(all))}`;
  },
  'compression': async () => {
    const b = Buffer.concat([bytes(200000), Buffer.alloc(200000, 'abc')]);
    const z = await new Promise((resolve, reject) => zlib.gzip(b, (e, r) => e ? reject(e) : resolve(r)));
    assert(zlib.gunzipSync(z).equals(b));
    return sum(b);
  },
  'sockets': () => new Promise((resolve, reject) => {
    const server = net.createServer((s) => s.pipe(s));
    server.listen(0, '127.0.0.1', () => {
      let ended = 0;
      const sums = [];
      for (let c = 0; c < 5; c++) {
        const want = bytes(50000 + c), got = [];
        const s = net.connect(server.address().port, '127.0.0.1', () => s.end(want));
        s.on('error', reject);
        s.on('data', (d) => got.push(d));
        s.on('end', () => {
          sums[c] = Buffer.concat(got).equals(want) ? sum(want) : 'wrong';
          if (++ended === 5) server.close(() => resolve(sums.join(' ')));
        });
      }
    });
  }),
  'HTTP': () => new Promise((resolve, reject) => {
    const server = http.createServer((q, r) => r.end(`you asked for ${q.url}`));
    server.listen(0, '127.0.0.1', async () => {
      const get = (n) => new Promise((done, fail) => http.get({ port: server.address().port, host: '127.0.0.1', path: `/${n}`, agent: false }, (r) => {
        let text = '';
        r.on('data', (d) => { text += d; });
        r.on('end', () => done(text));
      }).on('error', fail));
      try {
        let h = 0;
        for (let n = 0; n < 100; n++) {
          const text = await get(n);
          assert.strictEqual(text, `you asked for /${n}`);
          h = mix(h, text.length);
        }
        server.close(() => resolve(`${h >>> 0}`));
      } catch (e) { reject(e); }
    });
  }),
  'children': async () => {
    const out = [];
    for (let i = 0; i < 10; i++) {
      const r = child.spawnSync('sh', ['-c', `read line; echo got $line; exit ${i}`], { input: `line${i}\n` });
      out.push(`${String(r.stdout).trim()} ${r.status}`);
    }
    const killed = child.spawn('sleep', ['600']);
    const signal = await new Promise((resolve) => {
      killed.on('exit', (code, s) => resolve(s));
      killed.kill('SIGTERM');
    });
    return `${out.join(', ')}, ${signal}`;
  },
  'signals': async () => {
    let n = 0;
    process.on('SIGUSR2', () => n++);
    for (let i = 1; i <= 20; i++) {
      process.kill(process.pid, 'SIGUSR2');
      while (n < i) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return `${n}`;
  },
  'timers': async () => {
    const begin = process.hrtime.bigint(), order = [];
    await Promise.all([40, 10, 30, 20].map((ms) => new Promise((resolve) => setTimeout(() => { order.push(ms); resolve(); }, ms * 10))));
    return `${order.join(' ')} ${process.hrtime.bigint() - begin >= 399000000n}`;
  },
  'WebAssembly': async () => {
    // (func (export "f") (param i32) (result i32) local.get 0, i32.load) in one page
    // of memory: an address outside is a fault that is an exception.
    const module = new WebAssembly.Module(new Uint8Array([
      0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 6, 1, 0x60, 1, 0x7f, 1, 0x7f, 3, 2, 1, 0, 5, 3, 1, 0, 1,
      7, 5, 1, 1, 0x66, 0, 0, 10, 9, 1, 7, 0, 0x20, 0, 0x28, 2, 0, 0x0b]));
    const f = new WebAssembly.Instance(module).exports.f;
    let good = 0, caught = 0;
    for (let i = 0; i < 20000; i++) {
      try {
        f(i % 1000 === 999 ? 0x7fff0000 : i * 2);
        good++;
      } catch (e) {
        assert(e instanceof WebAssembly.RuntimeError);
        caught++;
      }
    }
    return `${good} ${caught}`;
  },
};

async function main() {
  await null; // the parts are defined below
  let failed = 0;
  for (const [name, run] of Object.entries(parts)) {
    try {
      console.log(`RESULT pass ${name} = ${await run()}`);
    } catch (e) {
      failed++;
      console.log(e);
      console.log(`RESULT fail ${name}`);
    }
  }
  process.exitCode = failed ? 1 : 0;
}
